//! What must hold when an eviction is granted.

use std::time::Duration;

use meta::LabelSelector;
use serde_json::Value;

use super::{Checks, WINDOW, is_available, number};
use crate::api::Api;
use crate::nodes::text;

/// A pod that is to be evicted and is still there after this time counts again, as upstream's.
const EVICTION: Duration = Duration::from_secs(120);

impl Checks {
    /// A pod of a budget is evicted: what stays must be enough, unless others took pods away of
    /// which the budget could not know yet.
    pub(crate) fn evicted(&mut self, api: &Api, budget: &Value, pod: &Value) {
        let namespace = &budget["metadata"]["namespace"];
        let app = &budget["spec"]["selector"]["matchLabels"]["app"];
        let key = (text(namespace).to_owned(), text(app).to_owned());
        let is_recent = self.ceased.get(&key).is_some_and(|at| at.elapsed() <= WINDOW);
        // A clock that is wrong by nearly as much forgets evictions at once.
        let is_wrong = self.skew.is_some_and(|(by, at)| {
            by.unsigned_abs() > EVICTION / 2 || at.elapsed() < 2 * EVICTION
        });
        if is_recent || is_wrong {
            return;
        }
        let Ok(selector) = LabelSelector::from_object(budget["spec"].get("selector")) else {
            return;
        };
        let stays = api.all("/pods").filter(|other| {
            other["metadata"]["namespace"] == *namespace
                && other["metadata"]["uid"] != pod["metadata"]["uid"]
                && selector.matches_value(&other["metadata"]["labels"])
                && is_available(other)
        });
        let stays = i64::try_from(stays.count()).unwrap_or(i64::MAX);
        let least = number(&budget["spec"]["minAvailable"], 0);
        if stays < least {
            let (name, pod) = (&budget["metadata"]["name"], &pod["metadata"]["name"]);
            self.violated(format!(
                "pod {pod} is evicted, and leaves {stays} to budget {name}; {least} must be"
            ));
        }
    }
}
