//! `flowcontrol.apiserver.k8s.io`, `resource.k8s.io`, and kinds that are served on demand.

use super::Rule;

pub(super) const RULES: &[Rule] = &[
    ("flowcontrol/v1.FlowSchemaSpec", "matchingPrecedence", "1000"),
    ("flowcontrol/v1.ExemptPriorityLevelConfiguration", "nominalConcurrencyShares", "0"),
    ("flowcontrol/v1.ExemptPriorityLevelConfiguration", "lendablePercent", "0"),
    ("flowcontrol/v1.LimitedPriorityLevelConfiguration", "nominalConcurrencyShares", "30"),
    ("flowcontrol/v1.LimitedPriorityLevelConfiguration", "lendablePercent", "0"),
    ("flowcontrol/v1.QueuingConfiguration", "handSize", "8"),
    ("flowcontrol/v1.QueuingConfiguration", "queues", "64"),
    ("flowcontrol/v1.QueuingConfiguration", "queueLengthLimit", "50"),
    ("resource/v1.DeviceToleration", "operator", "\"Equal\""),
    ("resource/v1.NodeAllocatableResourceMapping", "allocationMultiplier", "\"1\""),
    ("resource/v1.ResourcePoolStatusRequestSpec", "limit", "100"),
    ("certificates/v1.PodCertificateRequestSpec", "maxExpirationSeconds", "86400"),
    ("scheduling/v1.PodGroupSpec", "disruptionMode", "\"Pod\""),
];
