//! TaintNodesByCondition: new nodes take no pods until they are known to be ready.

use meta::Status;
use serde_json::{Value, json};

use crate::chain::Plugin;
use crate::request::{Operation, Request, View};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(crate) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        _view: &dyn View,
    ) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_for("", "nodes") {
            return Ok(());
        }
        let taints = &mut object["spec"]["taints"];
        let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
        let is_there = |found: &Value| found["key"] == NOT_READY && found["effect"] == "NoSchedule";
        match taints.as_array_mut() {
            Some(list) if list.iter().any(is_there) => {}
            Some(list) => list.push(taint),
            None => *taints = Value::Array(vec![taint]),
        }
        Ok(())
    }
}
