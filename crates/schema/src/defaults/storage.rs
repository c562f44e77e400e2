//! `storage.k8s.io` and `scheduling.k8s.io`.

use super::Rule;

pub(super) const RULES: &[Rule] = &[
    ("storage/v1.StorageClass", "reclaimPolicy", "\"Delete\""),
    ("storage/v1.StorageClass", "volumeBindingMode", "\"Immediate\""),
    ("storage/v1.CSIDriverSpec", "attachRequired", "true"),
    ("storage/v1.CSIDriverSpec", "podInfoOnMount", "false"),
    ("storage/v1.CSIDriverSpec", "storageCapacity", "false"),
    ("storage/v1.CSIDriverSpec", "fsGroupPolicy", "\"ReadWriteOnceWithFSType\""),
    ("storage/v1.CSIDriverSpec", "volumeLifecycleModes", "[\"Persistent\"]"),
    ("storage/v1.CSIDriverSpec", "requiresRepublish", "false"),
    ("storage/v1.CSIDriverSpec", "seLinuxMount", "false"),
    ("scheduling/v1.PriorityClass", "preemptionPolicy", "\"PreemptLowerPriority\""),
];
