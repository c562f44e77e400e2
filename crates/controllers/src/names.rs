//! The names under which controllers are chosen, upstream's old ones among them.
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

/// Those of upstream's that speak to a cloud: there is none here.
const OF_CLOUDS: [&str; 2] = ["cloud-node-lifecycle-controller", "node-route-controller"];

/// A controller that cannot be chosen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not in the list of known controllers")]
pub struct UnknownController(pub String);

/// Reads upstream's `--controllers`: old names become the ones of today. What upstream would skip
/// with a message is skipped here too.
///
/// # Errors
/// When one of the names is unknown.
pub fn choose(list: &[String], features: &Features) -> Result<Vec<String>, UnknownController> {
    let mut chosen = Vec::new();
    for entry in list {
        let (sign, given) =
            entry.strip_prefix('-').map_or(("", entry.as_str()), |rest| ("-", rest));
        let name = of_today(given);
        if entry != "*" && crate::controllers().all(|known| known != name) {
            if !OF_CLOUDS.contains(&name.as_str()) {
                return Err(UnknownController(given.to_owned()));
            }
            if sign.is_empty() {
                tracing::warn!(name, "controller needs a cloud provider, and there is none");
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[track_caller]
    fn check(list: &str, gates: &str, expected: Result<&str, UnknownController>) {
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
            let is_known =
                crate::controllers().any(|known| known == name) || OF_CLOUDS.contains(&name);
            assert!(is_known, "{name}");
        }
    }

    #[test]
    fn what_is_unknown_is_told_and_what_cannot_be_is_left_out() {
        check("*,nobody", "", Err(UnknownController("nobody".to_owned())));
        check("-nobody", "", Err(UnknownController("nobody".to_owned())));
        check("*,route,-cloud-node-lifecycle", "", Ok("*"));
        let migrator = "storage-version-migrator-controller";
        check(&format!("*,{migrator}"), "", Ok("*"));
        check(migrator, "StorageVersionMigrator=true", Ok(migrator));
        let pools = "resourcepoolstatusrequest-controller";
        check(pools, "", Ok(""));
        check(pools, "DRAResourcePoolStatus=true", Ok(pools));
        let versions = "storageversion-garbage-collector-controller";
        check("storage-version-gc", "", Ok(""));
        check("storage-version-gc", "StorageVersionAPI=true", Ok(versions));
    }

    /// Upstream's, of 1.36.
    const UPSTREAMS: &str = include_str!("upstream_controllers.txt");

    #[test]
    fn every_controller_of_upstreams_is_here_but_those_of_clouds() {
        let known: BTreeSet<_> = UPSTREAMS.lines().filter(|line| !line.starts_with('#')).collect();
        let ours: BTreeSet<_> = crate::controllers().chain(OF_CLOUDS).collect();
        let ours_alone: Vec<_> = ours.difference(&known).copied().collect();
        let missing: Vec<_> = known.difference(&ours).copied().collect();
        assert_eq!((ours_alone, missing), (vec!["local-path-provisioner"], vec![]));
    }
}
