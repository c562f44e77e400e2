//! How many claims for devices there are, counted when somebody asks.
//!
//! Upstream: `pkg/controller/resourceclaim/metrics`.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::ResourceClaim;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntGaugeVec, Opts};

use super::plan;
use crate::cluster::Informers;

/// On claims that the scheduler made for extended resources.
const EXTENDED: &str = "resource.kubernetes.io/extended-resource-claim";

/// Counts those of the shared informers.
pub(super) struct ClaimCounts {
    informers: Arc<Informers>,
    claims: IntGaugeVec,
}

impl ClaimCounts {
    pub(super) fn new(informers: Arc<Informers>) -> Result<Self, Error> {
        let opts = Opts::new(
            "resourceclaim_controller_resource_claims",
            "Claims for devices, by what made them.",
        );
        let claims = IntGaugeVec::new(opts, &["allocated", "admin_access", "source"])?;
        Ok(Self { informers, claims })
    }
}

impl Collector for ClaimCounts {
    fn desc(&self) -> Vec<&Desc> {
        self.claims.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.claims.reset();
        for claim in self.informers.device_claims.list() {
            self.claims.with_label_values(&labels(&claim)).inc();
        }
        self.claims.collect()
    }
}

/// Whether it has devices, whether as an administrator, and what made it.
fn labels(claim: &ResourceClaim) -> [&'static str; 3] {
    let text = |is: bool| if is { "true" } else { "false" };
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let annotation = |key: &str| claim.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let source = if annotation(plan::ENTRY).is_some() {
        "resource_claim_template"
    } else if annotation(EXTENDED).is_some_and(|value| value == "true") {
        "extended_resource"
    } else {
        ""
    };
    [text(allocation.is_some()), text(plan::is_of_admin(&claim.spec)), source]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn claims_are_told_apart_by_devices_rights_and_maker() {
        let of = |annotations: Value, requests: Value, status: Value| {
            let claim = json!({ "metadata": { "annotations": annotations }, "status": status,
                "spec": { "devices": { "requests": requests } } });
            labels(&serde_json::from_value(claim).unwrap())
        };
        let plain = json!([{ "name": "r", "exactly": { "deviceClassName": "c" } }]);
        let admin =
            json!([{ "name": "r", "exactly": { "deviceClassName": "c", "adminAccess": true } }]);
        let given = json!({ "allocation": {} });
        assert_eq!(of(json!({}), plain.clone(), json!({})), ["false", "false", ""]);
        let template = of(json!({ plan::ENTRY: "x" }), admin, given.clone());
        assert_eq!(template, ["true", "true", "resource_claim_template"]);
        let extended = of(json!({ EXTENDED: "true" }), plain, given);
        assert_eq!(extended, ["true", "false", "extended_resource"]);
    }
}
