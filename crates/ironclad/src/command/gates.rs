//! Flags that every component has: feature gates; and the API server's choice of versions.

use anyhow::Context;
use features::Features;

/// The gates that switch something in this program, beside those that resources need. Others are
/// upstream's, and are taken so that one set of flags does for every part of a cluster.
const SWITCHED: [&str; 9] = [
    "APIResponseCompression",
    "AllowInsecureKubeletCertificateSigningRequests",
    "ClusterTrustBundleProjection",
    "DRAWorkloadResourceClaims",
    "PodTopologyLabelsAdmission",
    "ServiceAccountNodeAudienceRestriction",
    "TopologyAwareWorkloadScheduling",
    "WatchList",
    "WorkloadAwarePreemption",
];

/// Feature gates.
#[derive(clap::Args)]
pub(crate) struct Gates {
    /// Feature gates: Name=true or Name=false; AllAlpha and AllBeta stand for all of a stage.
    #[arg(long, value_name = "NAME=BOOL")]
    feature_gates: Vec<String>,
}

impl Gates {
    /// What was chosen.
    pub(crate) fn read(&self) -> anyhow::Result<Features> {
        let features = Features::parse(&self.feature_gates).context("--feature-gates")?;
        for (gate, value) in features.changed().filter(|(gate, _)| !switches(gate)) {
            tracing::warn!(gate, value, "this feature gate switches nothing here");
        }
        Ok(features)
    }
}

/// Whether a gate switches something here.
fn switches(gate: &str) -> bool {
    SWITCHED.contains(&gate) || schema::RuntimeConfig::listens_to(gate)
}

/// Versions of the API.
#[derive(clap::Args)]
pub(crate) struct Versions {
    /// Versions to serve or not: group/version=true, group/version/resource=false, api/beta=true;
    /// default: those that are stable.
    #[arg(long, value_name = "KEY=BOOL")]
    runtime_config: Vec<String>,
}

impl Versions {
    /// Makes the process serve them.
    pub(crate) fn apply(&self, features: &Features) -> anyhow::Result<()> {
        let is_open = |gate: &str| features.is_enabled(gate);
        let config = schema::RuntimeConfig::parse(&self.runtime_config, is_open)
            .context("--runtime-config")?;
        Ok(schema::configure(config)?)
    }
}

#[cfg(test)]
mod tests {
    use super::switches;

    #[test]
    fn gates_of_resources_and_of_behaviour_switch_something() {
        assert!(switches("PodCertificateRequest"));
        assert!(switches("WatchList"));
        assert!(!switches("CPUManagerPolicyAlphaOptions"));
    }
}
