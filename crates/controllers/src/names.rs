//! The names under which controllers are chosen, upstream's old ones among them, and which of
//! upstream's are not here.
//!
//! Upstream: `cmd/kube-controller-manager/names` and `app/controller_descriptor.go`.

use features::Features;

/// What controllers were called until 1.28, and what they are called now.
const ALIASES: [(&str, &str); 39] = [
    ("attachdetach", "persistentvolume-attach-detach-controller"),
    ("bootstrapsigner", "bootstrap-signer-controller"),
    ("cloud-node-lifecycle", "cloud-node-lifecycle-controller"),
    ("clusterrole-aggregation", "clusterrole-aggregation-controller"),
    ("cronjob", "cronjob-controller"),
    ("csrapproving", "certificatesigningrequest-approving-controller"),
    ("csrcleaner", "certificatesigningrequest-cleaner-controller"),
    ("csrsigning", "certificatesigningrequest-signing-controller"),
    ("daemonset", "daemonset-controller"),
    ("deployment", "deployment-controller"),
    ("disruption", "disruption-controller"),
    ("endpoint", "endpoints-controller"),
    ("endpointslice", "endpointslice-controller"),
    ("endpointslicemirroring", "endpointslice-mirroring-controller"),
    ("ephemeral-volume", "ephemeral-volume-controller"),
    ("garbagecollector", "garbage-collector-controller"),
    ("horizontalpodautoscaling", "horizontal-pod-autoscaler-controller"),
    ("job", "job-controller"),
    ("legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller"),
    ("namespace", "namespace-controller"),
    ("nodeipam", "node-ipam-controller"),
    ("nodelifecycle", "node-lifecycle-controller"),
    ("persistentvolume-binder", "persistentvolume-binder-controller"),
    ("persistentvolume-expander", "persistentvolume-expander-controller"),
    ("podgc", "pod-garbage-collector-controller"),
    ("pv-protection", "persistentvolume-protection-controller"),
    ("pvc-protection", "persistentvolumeclaim-protection-controller"),
    ("replicaset", "replicaset-controller"),
    ("replicationcontroller", "replicationcontroller-controller"),
    ("resource-claim-controller", "resourceclaim-controller"),
    ("resourcequota", "resourcequota-controller"),
    ("root-ca-cert-publisher", "root-ca-certificate-publisher-controller"),
    ("route", "node-route-controller"),
    ("service", "service-lb-controller"),
    ("serviceaccount", "serviceaccount-controller"),
    ("serviceaccount-token", "serviceaccount-token-controller"),
    ("statefulset", "statefulset-controller"),
    ("storage-version-gc", "storageversion-garbage-collector-controller"),
    ("tokencleaner", "token-cleaner-controller"),
];

/// Two that keep their names, but for the end.
const SHORT: [&str; 2] = ["ttl", "ttl-after-finished"];

/// Why a controller of upstream's is not here.
#[derive(Clone, Copy)]
enum Absent {
    /// It runs only with these gates, as upstream's.
    Gated(&'static [&'static str]),
    /// It speaks to a cloud, and there is none.
    Cloud,
    /// It is not built.
    Unbuilt,
}

const ABSENT: [(&str, Absent); 5] = [
    ("cloud-node-lifecycle-controller", Absent::Cloud),
    ("node-route-controller", Absent::Cloud),
    ("resourcepoolstatusrequest-controller", Absent::Gated(&["DRAResourcePoolStatus"])),
    ("selinux-warning-controller", Absent::Unbuilt),
    (
        "storageversion-garbage-collector-controller",
        Absent::Gated(&["APIServerIdentity", "StorageVersionAPI"]),
    ),
];

/// A controller that cannot be chosen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChoiceError {
    /// There is none of this name.
    #[error("{0:?} is not in the list of known controllers")]
    Unknown(String),
    /// It is one of upstream's, and missing here.
    #[error("{0:?} is not built: leave it out of the list of controllers")]
    Unbuilt(String),
}

/// Reads upstream's `--controllers`: old names become the ones of today. What upstream would skip
/// with a message is skipped here too.
///
/// # Errors
/// When one of the names is unknown, or of a controller that is not built.
pub fn choose(list: &[String], features: &Features) -> Result<Vec<String>, ChoiceError> {
    let mut chosen = Vec::new();
    for entry in list {
        let (sign, given) =
            entry.strip_prefix('-').map_or(("", entry.as_str()), |rest| ("-", rest));
        let name = of_today(given);
        if entry != "*" && crate::controllers().all(|known| known != name) {
            let absent = ABSENT.iter().find(|(known, _)| *known == name);
            let (_, absent) = absent.ok_or_else(|| ChoiceError::Unknown(given.to_owned()))?;
            if sign.is_empty() {
                may_be_skipped(&name, *absent, features)?;
            }
            continue;
        }
        if let Some(gate) = crate::closed_gate(&name, features).filter(|_| sign.is_empty()) {
            tracing::warn!(name, gate, "controller is disabled by a feature gate");
            continue;
        }
        chosen.push(format!("{sign}{name}"));
    }
    Ok(chosen)
}

fn of_today(name: &str) -> String {
    if SHORT.contains(&name) {
        return format!("{name}-controller");
    }
    let alias = ALIASES.iter().find(|(old, _)| *old == name);
    alias.map_or(name, |(_, new)| new).to_owned()
}

fn may_be_skipped(name: &str, absent: Absent, features: &Features) -> Result<(), ChoiceError> {
    match absent {
        Absent::Cloud => {
            tracing::warn!(name, "controller needs a cloud provider, and there is none");
        }
        Absent::Gated(gates) if !gates.iter().all(|gate| features.is_enabled(gate)) => {
            tracing::warn!(name, ?gates, "controller is disabled by a feature gate");
        }
        Absent::Gated(_) | Absent::Unbuilt => return Err(ChoiceError::Unbuilt(name.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &str, gates: &str, expected: Result<&str, ChoiceError>) {
        let list: Vec<_> = list.split(',').map(str::to_owned).collect();
        let features = Features::parse(&[gates]).unwrap();
        let chosen = choose(&list, &features).map(|names| names.join(","));
        assert_eq!(chosen, expected.map(str::to_owned));
    }

    #[test]
    fn old_and_new_names_are_known() {
        check("*", "", Ok("*"));
        check("*,-ttl,podgc", "", Ok("*,-ttl-controller,pod-garbage-collector-controller"));
        check("-attachdetach", "", Ok("-persistentvolume-attach-detach-controller"));
        for (_, name) in ALIASES {
            let is_known = crate::controllers().any(|known| known == name)
                || ABSENT.iter().any(|(known, _)| *known == name);
            assert!(is_known, "{name}");
        }
    }

    #[test]
    fn what_is_unknown_or_not_built_is_told() {
        check("*,nobody", "", Err(ChoiceError::Unknown("nobody".to_owned())));
        check("-nobody", "", Err(ChoiceError::Unknown("nobody".to_owned())));
        let selinux = "selinux-warning-controller";
        check(selinux, "", Err(ChoiceError::Unbuilt(selinux.to_owned())));
        check(&format!("*,-{selinux},route"), "", Ok("*"));
        let migrator = "storage-version-migrator-controller";
        check(&format!("*,{migrator}"), "", Ok("*"));
        check(migrator, "StorageVersionMigrator=true", Ok(migrator));
        let pools = "resourcepoolstatusrequest-controller";
        check(pools, "", Ok(""));
        let gate = "DRAResourcePoolStatus=true";
        check(pools, gate, Err(ChoiceError::Unbuilt(pools.to_owned())));
    }
}
