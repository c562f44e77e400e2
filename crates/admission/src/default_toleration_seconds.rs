//! DefaultTolerationSeconds: pods stay five minutes on nodes that are gone.

use meta::Status;
use serde_json::{Value, json};

use crate::chain::Plugin;
use crate::request::{Operation, Request, View};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(crate) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        _view: &dyn View,
    ) -> Result<(), Status> {
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        if is_write && request.is_for("", "pods") {
            TAINTS.iter().for_each(|taint| tolerate(object, taint));
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Value, taint: &str) {
    let tolerations = &mut pod["spec"]["tolerations"];
    let covers = |toleration: &Value| {
        let text = |field: &str| toleration[field].as_str().unwrap_or_default();
        (text("key") == taint || text("key").is_empty())
            && matches!(text("effect"), "NoExecute" | "")
    };
    if tolerations.as_array().is_some_and(|list| list.iter().any(covers)) {
        return;
    }
    let added = json!({"key": taint, "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": SECONDS});
    match tolerations.as_array_mut() {
        Some(list) => list.push(added),
        None => *tolerations = Value::Array(vec![added]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_that_covers_the_taint_is_enough() {
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        let before = pod.clone();
        TAINTS.iter().for_each(|taint| tolerate(&mut pod, taint));
        assert_eq!(pod, before);
        let mut pod = json!({"spec": {}});
        TAINTS.iter().for_each(|taint| tolerate(&mut pod, taint));
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    }
}
