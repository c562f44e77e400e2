//! Priority: a pod's class becomes a number.
//!
//! Upstream: `plugin/pkg/admission/priority`.

use std::sync::Arc;

use memchr::memmem;
use meta::{Object, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};

const GROUP: &str = "scheduling.k8s.io";
/// As it stands in the canonical JSON of a class.
const IS_DEFAULT: &[u8] = b"\"globalDefault\":true";

pub(crate) struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        if !request.is_for("", "pods") {
            return Ok(());
        }
        if request.operation == Operation::Update {
            // It was decided when the pod was made.
            for field in ["priority", "preemptionPolicy"] {
                let kept = old.and_then(|old| old["spec"].get(field));
                if let (None, Some(kept)) = (object["spec"].get(field), kept) {
                    object["spec"][field] = kept.clone();
                }
            }
            return Ok(());
        }
        if request.operation == Operation::Create {
            return resolve(request, object, view);
        }
        Ok(())
    }
}

fn resolve(request: &Request<'_>, pod: &mut Value, view: &dyn View) -> Result<(), Status> {
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if name.is_empty() {
        default_class(view)
    } else {
        let found = view.get(GROUP, "priorityclasses", "", &name);
        let found = found.and_then(|class| class.decode::<Class>().ok());
        let missing =
            || forbidden(request, &format!("no PriorityClass with name {name} was found"));
        Some(found.ok_or_else(missing)?)
    };
    let value = class.as_ref().map_or(0, |class| class.value);
    let policy = class.as_ref().and_then(|class| class.preemption_policy.clone());
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".to_owned());
    if let Some(class) = class.filter(|_| name.is_empty()) {
        pod["spec"]["priorityClassName"] = json!(class.metadata.name);
    }
    let given = pod["spec"]["priority"].as_i64();
    if given.is_some_and(|given| given != value) {
        let why = format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority \
             admission controller computed {value} from the given PriorityClass name",
            given.unwrap_or_default()
        );
        return Err(forbidden(request, &why));
    }
    let given = pod["spec"]["preemptionPolicy"].as_str();
    if given.is_some_and(|given| given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority \
             admission controller computed {policy} from the given PriorityClass name",
            given.unwrap_or_default()
        );
        return Err(forbidden(request, &why));
    }
    pod["spec"]["priority"] = json!(value);
    pod["spec"]["preemptionPolicy"] = json!(policy);
    Ok(())
}

/// The global default; of several, the one with the lowest value.
fn default_class(view: &dyn View) -> Option<Class> {
    let classes = view.list(GROUP, "priorityclasses", "");
    // Most are no default, and need not be read to know it.
    let says = |class: &&Arc<Object>| memmem::find(class.json(), IS_DEFAULT).is_some();
    classes
        .iter()
        .filter(says)
        .filter_map(|class| class.decode::<Class>().ok())
        .filter(|class| class.global_default)
        .min_by_key(|class| class.value)
}

/// What counts of a `PriorityClass`; they are read for every pod.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    metadata: Named,
    #[serde(default)]
    value: i64,
    #[serde(default)]
    global_default: bool,
    preemption_policy: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}
