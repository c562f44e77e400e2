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
        let Some(name) = object["spec"]["runtimeClassName"].as_str().map(str::to_owned) else {
            if object["spec"].get("overhead").is_some() {
                let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass \
                           defined Overhead";
                return Err(forbidden(request, why));
            }
            return Ok(());
        };
        let found = view.get("node.k8s.io", "runtimeclasses", "", &name);
        let Some(class) = found.and_then(|class| class.decode::<Value>().ok()) else {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            return Err(forbidden(request, &why));
        };
        set_overhead(request, object, &class)?;
        set_scheduling(request, object, &class)
    }
}

fn set_overhead(request: &Request<'_>, pod: &mut Value, class: &Value) -> Result<(), Status> {
    let overhead = &class["overhead"]["podFixed"];
    let given = pod["spec"].get("overhead");
    if given.is_some_and(|given| given != overhead) {
        let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        return Err(forbidden(request, why));
    }
    if !overhead.is_null() {
        pod["spec"]["overhead"] = overhead.clone();
    }
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
