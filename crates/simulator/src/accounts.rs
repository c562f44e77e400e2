//! Who the controllers are, and what they watch.

/// The account of each controller, and the collections that it depends on. Some share an account.
pub(crate) const ACCOUNTS: [(&str, &[&str]); 42] = [
    (
        "attachdetach-controller",
        &[
            "/nodes",
            "/persistentvolumeclaims",
            "/persistentvolumes",
            "/pods",
            "storage.k8s.io/csidrivers",
            "storage.k8s.io/volumeattachments",
        ],
    ),
    ("bootstrap-signer", &["/configmaps", "/secrets"]),
    ("certificate-controller", &["certificates.k8s.io/certificatesigningrequests"]),
    ("clusterrole-aggregation-controller", &["rbac.authorization.k8s.io/clusterroles"]),
    ("cronjob-controller", &["batch/cronjobs", "batch/jobs"]),
    ("daemon-set-controller", &["/nodes", "/pods", "apps/controllerrevisions", "apps/daemonsets"]),
    ("deployment-controller", &["/pods", "apps/deployments", "apps/replicasets"]),
    (
        "device-taint-eviction-controller",
        &["/pods", "resource.k8s.io/resourceclaims", "resource.k8s.io/resourceslices"],
    ),
    (
        "disruption-controller",
        &[
            "/pods",
            "/replicationcontrollers",
            "apps/deployments",
            "apps/replicasets",
            "apps/statefulsets",
            "policy/poddisruptionbudgets",
        ],
    ),
    ("endpoint-controller", &["/endpoints", "/pods", "/services"]),
    (
        "endpointslice-controller",
        &["/nodes", "/pods", "/services", "discovery.k8s.io/endpointslices"],
    ),
    (
        "endpointslicemirroring-controller",
        &["/endpoints", "/services", "discovery.k8s.io/endpointslices"],
    ),
    ("ephemeral-volume-controller", &["/persistentvolumeclaims", "/pods"]),
    ("expand-controller", &["/persistentvolumeclaims", "/persistentvolumes"]),
    ("generic-garbage-collector", &["/configmaps", "/pods", "example.com/widgets"]),
    ("horizontal-pod-autoscaler", &["/pods", "autoscaling/horizontalpodautoscalers"]),
    ("job-controller", &["/pods", "batch/jobs"]),
    ("leader-election", &[]),
    ("legacy-service-account-token-cleaner", &["/secrets", "/serviceaccounts"]),
    (
        "local-path-provisioner",
        &[
            "/nodes",
            "/persistentvolumeclaims",
            "/persistentvolumes",
            "storage.k8s.io/storageclasses",
        ],
    ),
    // It makes the tokens of accounts, too.
    ("manager-controller", &["/secrets", "/serviceaccounts"]),
    ("namespace-controller", &["/namespaces", "/pods"]),
    ("node-controller", &["/nodes", "/pods", "coordination.k8s.io/leases"]),
    (
        "persistent-volume-binder",
        &[
            "/persistentvolumeclaims",
            "/persistentvolumes",
            "/pods",
            "storage.k8s.io/storageclasses",
        ],
    ),
    ("pod-garbage-collector", &["/nodes", "/pods"]),
    ("pv-protection-controller", &["/persistentvolumes"]),
    ("pvc-protection-controller", &["/persistentvolumeclaims", "/pods"]),
    ("replicaset-controller", &["/pods", "apps/replicasets"]),
    ("replication-controller", &["/pods", "/replicationcontrollers"]),
    ("resource-claim-controller", &["/pods", "resource.k8s.io/resourceclaims"]),
    ("resourcequota-controller", &["/pods", "/resourcequotas"]),
    ("root-ca-cert-publisher", &["/configmaps", "/namespaces"]),
    ("scheduler", &["/nodes", "/pods"]),
    ("service-account-controller", &["/namespaces", "/serviceaccounts"]),
    (
        "service-cidrs-controller",
        &["networking.k8s.io/ipaddresses", "networking.k8s.io/servicecidrs"],
    ),
    ("service-controller", &["/nodes", "/services"]),
    (
        "statefulset-controller",
        &["/persistentvolumeclaims", "/pods", "apps/controllerrevisions", "apps/statefulsets"],
    ),
    ("token-cleaner", &["/secrets"]),
    ("ttl-after-finished-controller", &["batch/jobs"]),
    ("ttl-controller", &["/nodes"]),
    (
        "validatingadmissionpolicy-status-controller",
        &["admissionregistration.k8s.io/validatingadmissionpolicies"],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            "/persistentvolumeclaims",
            "/persistentvolumes",
            "storage.k8s.io/volumeattributesclasses",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose account each controller has.
    const CONTROLLERS: [(&str, &str); 44] = [
        ("serviceaccount-controller", "service-account-controller"),
        ("serviceaccount-token-controller", "manager-controller"),
        ("legacy-serviceaccount-token-cleaner-controller", "legacy-service-account-token-cleaner"),
        ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher"),
        ("node-ipam-controller", "node-controller"),
        ("replicaset-controller", "replicaset-controller"),
        ("replicationcontroller-controller", "replication-controller"),
        ("deployment-controller", "deployment-controller"),
        ("daemonset-controller", "daemon-set-controller"),
        ("statefulset-controller", "statefulset-controller"),
        ("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler"),
        ("disruption-controller", "disruption-controller"),
        ("node-lifecycle-controller", "node-controller"),
        ("taint-eviction-controller", "node-controller"),
        ("pod-garbage-collector-controller", "pod-garbage-collector"),
        ("endpointslice-mirroring-controller", "endpointslicemirroring-controller"),
        ("ttl-after-finished-controller", "ttl-after-finished-controller"),
        ("cronjob-controller", "cronjob-controller"),
        ("job-controller", "job-controller"),
        ("namespace-controller", "namespace-controller"),
        ("garbage-collector-controller", "generic-garbage-collector"),
        ("resourcequota-controller", "resourcequota-controller"),
        ("service-cidr-controller", "service-cidrs-controller"),
        ("service-lb-controller", "service-controller"),
        (
            "validatingadmissionpolicy-status-controller",
            "validatingadmissionpolicy-status-controller",
        ),
        ("persistentvolume-binder-controller", "persistent-volume-binder"),
        ("certificatesigningrequest-approving-controller", "certificate-controller"),
        ("certificatesigningrequest-signing-controller", "certificate-controller"),
        ("certificatesigningrequest-cleaner-controller", "certificate-controller"),
        ("ephemeral-volume-controller", "ephemeral-volume-controller"),
        ("resourceclaim-controller", "resource-claim-controller"),
        ("device-taint-eviction-controller", "device-taint-eviction-controller"),
        ("clusterrole-aggregation-controller", "clusterrole-aggregation-controller"),
        ("ttl-controller", "ttl-controller"),
        ("persistentvolume-attach-detach-controller", "attachdetach-controller"),
        ("persistentvolume-expander-controller", "expand-controller"),
        ("local-path-provisioner", "local-path-provisioner"),
        ("persistentvolumeclaim-protection-controller", "pvc-protection-controller"),
        ("persistentvolume-protection-controller", "pv-protection-controller"),
        (
            "volumeattributesclass-protection-controller",
            "volumeattributesclass-protection-controller",
        ),
        ("endpoints-controller", "endpoint-controller"),
        ("endpointslice-controller", "endpointslice-controller"),
        ("bootstrap-signer-controller", "bootstrap-signer"),
        ("token-cleaner-controller", "token-cleaner"),
    ];
    /// Those that are off as long as their gates are closed, and one that is off unless it is named
    /// and writes nothing but events.
    const GATED: [&str; 7] = [
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        "podcertificaterequest-cleaner-controller",
        "podgroup-protection-controller",
        "resourcepoolstatusrequest-controller",
        "selinux-warning-controller",
        "storage-version-migrator-controller",
        "storageversion-garbage-collector-controller",
    ];

    /// A new one must be given something to do here, so that it meets every fault.
    #[test]
    fn every_controller_is_known_here() {
        for name in controllers::controllers().filter(|name| !GATED.contains(name)) {
            let known = CONTROLLERS.iter().find(|(known, _)| *known == name);
            let account = known.unwrap_or_else(|| panic!("{name} is new")).1;
            assert!(ACCOUNTS.iter().any(|(known, _)| *known == account), "{account}");
        }
    }
}
