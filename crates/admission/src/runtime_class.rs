//! RuntimeClass: overhead and scheduling of a pod's runtime class.

use meta::Status;
use serde_json::{Value, json};

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Request, View};

pub(crate) struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        if !request.creates_pod() {
            return Ok(());
        }
        let Some(class) = class_of(request, object, view)? else { return Ok(()) };
        set_overhead(request, object, &class)?;
        set_scheduling(request, object, &class)
    }

    /// Others may have changed the pod since.
    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let Some(object) = object.filter(|_| request.creates_pod()) else { return Ok(()) };
        let class = class_of(request, object, view)?.unwrap_or_default();
        let (wanted, given) = (&class["overhead"]["podFixed"], &object["spec"]["overhead"]);
        if wanted == given {
            return Ok(());
        }
        let why = if class.get("overhead").is_some() { MISMATCH } else { WITHOUT_CLASS };
        Err(forbidden(request, why))
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const WITHOUT_CLASS: &str =
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

/// The runtime class that a pod names, if it names one.
fn class_of(request: &Request<'_>, pod: &Value, view: &dyn View) -> Result<Option<Value>, Status> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    let found = view.get("node.k8s.io", "runtimeclasses", "", name);
    match found.and_then(|class| class.decode::<Value>().ok()) {
        Some(class) => Ok(Some(class)),
        None => {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            Err(forbidden(request, &why))
        }
    }
}

fn set_overhead(request: &Request<'_>, pod: &mut Value, class: &Value) -> Result<(), Status> {
    let overhead = &class["overhead"]["podFixed"];
    if overhead.is_null() {
        return Ok(());
    }
    let given = pod["spec"].get("overhead");
    if given.is_some_and(|given| given != overhead) {
        return Err(forbidden(request, MISMATCH));
    }
    pod["spec"]["overhead"] = overhead.clone();
    Ok(())
}

fn set_scheduling(request: &Request<'_>, pod: &mut Value, class: &Value) -> Result<(), Status> {
    let scheduling = &class["scheduling"];
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let given = pod["spec"]["nodeSelector"].get(key);
        if given.is_some_and(|given| given != value) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                 pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or_default(),
                given.and_then(Value::as_str).unwrap_or_default()
            );
            return Err(forbidden(request, &why));
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    let added = scheduling["tolerations"].as_array().cloned().unwrap_or_default();
    if added.is_empty() {
        return Ok(());
    }
    let tolerations = &mut pod["spec"]["tolerations"];
    match tolerations.as_array_mut() {
        Some(list) => {
            for toleration in added {
                if !list.contains(&toleration) {
                    list.push(toleration);
                }
            }
        }
        None => *tolerations = json!(added),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Operation;
    use crate::testing::{Cluster, attempt};

    fn outcome(spec: Value) -> Result<Value, String> {
        let cluster = Cluster::default().with(
            "runtimeclasses",
            &[
                json!({"metadata": {"name": "heavy"}, "overhead": {"podFixed": {"cpu": "1"}},
                    "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "t"}]}}),
                json!({"metadata": {"name": "light"}}),
            ],
        );
        let create = attempt("", "pods", Operation::Create);
        let mut pod = json!({ "spec": spec });
        create.admit(&RuntimeClass, &mut pod, None, &cluster)?;
        create.validate(&RuntimeClass, Some(&pod), None, &cluster)?;
        Ok(pod["spec"].clone())
    }

    fn refusal(spec: Value) -> String {
        let message = outcome(spec).unwrap_err();
        message.split_once("is forbidden: ").unwrap().1.to_owned()
    }

    #[test]
    fn a_class_brings_overhead_and_scheduling() {
        let spec = outcome(json!({"runtimeClassName": "heavy", "nodeSelector": {"c": "d"}}));
        let spec = spec.unwrap();
        assert_eq!(spec["overhead"], json!({"cpu": "1"}));
        assert_eq!(spec["nodeSelector"], json!({"a": "b", "c": "d"}));
        assert_eq!(spec["tolerations"], json!([{"key": "t"}]));
        assert!(
            outcome(json!({})).is_ok() && outcome(json!({"runtimeClassName": "light"})).is_ok()
        );
    }

    #[test]
    fn a_pod_that_says_otherwise_is_refused() {
        let one = json!({"cpu": "1"});
        assert_eq!(refusal(json!({ "overhead": one })), WITHOUT_CLASS);
        assert_eq!(refusal(json!({"runtimeClassName": "light", "overhead": one})), WITHOUT_CLASS);
        let two = json!({"cpu": "2"});
        assert_eq!(refusal(json!({"runtimeClassName": "heavy", "overhead": two})), MISMATCH);
        assert_eq!(
            refusal(json!({"runtimeClassName": "none"})),
            "pod rejected: RuntimeClass \"none\" not found"
        );
        assert_eq!(
            refusal(json!({"runtimeClassName": "heavy", "nodeSelector": {"a": "x"}})),
            "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x"
        );
    }
}
