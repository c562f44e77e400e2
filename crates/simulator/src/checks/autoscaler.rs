//! What must hold when an autoscaler scales.

use serde_json::Value;

use super::{Checks, IN_FLIGHT, number};
use crate::api::Api;
use crate::nodes::text;

impl Checks {
    /// A deployment is scaled: within the bounds of an autoscaler that names it.
    pub(super) fn rescaled(&mut self, api: &Api, deployment: &Value) {
        let (namespace, name) =
            (&deployment["metadata"]["namespace"], &deployment["metadata"]["name"]);
        let replicas = number(&deployment["spec"]["replicas"], 1);
        let scaler = api.get("autoscaling/horizontalpodautoscalers", text(namespace), text(name));
        // One that has just been deleted may be at work.
        let Some(scaler) = scaler else { return };
        let born = self.born.get(text(&scaler["metadata"]["uid"]));
        if born.is_none_or(|born| born.elapsed() < IN_FLIGHT) {
            return;
        }
        let (least, most) = (&scaler["spec"]["minReplicas"], &scaler["spec"]["maxReplicas"]);
        let (least, most) = (number(least, 1), number(most, 1));
        if !(least..=most).contains(&replicas) {
            self.violated(format!(
                "autoscaler {name} gives {replicas} replicas; it may give {least} to {most}"
            ));
        }
    }
}
