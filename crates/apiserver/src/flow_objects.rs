//! Keeps the objects of flow control as they should be, and flow control as they are.
//!
//! Upstream: `registry/flowcontrol/ensurer` and `util/flowcontrol/apf_controller.go`.

use std::sync::Arc;
use std::time::Duration;

use admission::View;
use authn::UserInfo;
use flowcontrol::{AUTO_UPDATE, FlowControl, Wanted};
use futures::StreamExt;
use http::Method;
use meta::{GroupVersionKind, Reason, Status};
use serde_json::{Value, json};

use crate::bootstrap::{send, send_as};
use crate::handle::Handle;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const PATH: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
/// Upstream's name of whoever writes the status of schemas.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Upstream's interval.
const EVERY: Duration = Duration::from_secs(60);
/// Pause before a watch that ended is begun again.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the server shuts down.
pub(crate) async fn run(handle: Handle, control: Arc<FlowControl>) {
    let server = handle.server.clone();
    while !server.shutdown.is_begun() {
        if let Err(status) = follow(&handle, &control).await {
            tracing::warn!(%status, "the objects of flow control cannot be watched");
        }
        tokio::select! {
            () = server.clock.sleep(PAUSE) => {}
            () = server.shutdown.begun() => return,
        }
    }
}

/// Follows both kinds until a watch ends.
async fn follow(handle: &Handle, control: &FlowControl) -> Result<(), Status> {
    let server = &handle.server;
    let user = UserInfo::new("system:apiserver", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]);
    let mut schemas = handle.watch(&user, &format!("{PATH}/{SCHEMAS}?watch=true")).await?;
    let mut levels = handle.watch(&user, &format!("{PATH}/{LEVELS}?watch=true")).await?;
    take_over(handle, control).await;
    loop {
        let event = tokio::select! {
            event = schemas.next() => event,
            event = levels.next() => event,
            () = server.clock.sleep(EVERY) => {
                if let Err(status) = maintain(handle).await {
                    tracing::warn!(%status, "an object of flow control cannot be written");
                }
                continue;
            }
            () = server.shutdown.begun() => return Ok(()),
        };
        match event {
            Some(Ok(_)) => take_over(handle, control).await,
            _ => return Ok(()),
        }
    }
}

/// Makes flow control what the objects say, and tells schemas whether their level is there.
async fn take_over(handle: &Handle, control: &FlowControl) {
    let (schemas, levels) = (objects(handle, SCHEMAS), objects(handle, LEVELS));
    control.configure(&schemas, &levels);
    for schema in &schemas {
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or("");
        let is_there = levels.iter().any(|found| found["metadata"]["name"] == level);
        let now = meta::time::rfc3339(handle.server.clock.now());
        let condition = flowcontrol::dangling_condition(level, is_there, &now);
        let found = schema["status"]["conditions"].as_array().into_iter().flatten();
        let mut found = found.into_iter().filter(|found| found["type"] == "Dangling");
        let is_told = found.any(|found| {
            ["status", "reason", "message"].iter().all(|field| found[field] == condition[field])
        });
        if !is_told {
            tell(handle, schema, &condition).await;
        }
    }
}

fn objects(handle: &Handle, resource: &str) -> Vec<Value> {
    let found = handle.server.list(GROUP, resource, "");
    found.iter().filter_map(|object| object.decode().ok()).collect()
}

async fn tell(handle: &Handle, schema: &Value, condition: &Value) {
    let name = schema["metadata"]["name"].as_str().unwrap_or_default();
    let apply = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema",
        "metadata": {"name": name, "uid": schema["metadata"]["uid"]},
        "status": {"conditions": [condition]}});
    let name = crate::query::escape(name);
    let path = format!("{PATH}/{SCHEMAS}/{name}/status?fieldManager={MANAGER}&force=true");
    let media = "application/apply-patch+yaml";
    match send_as(handle, Method::PATCH, &path, media, &apply).await {
        // Whoever is gone, or another one by now, needs no status.
        Err(status) if !status.is(Reason::NotFound) && !status.is(Reason::Conflict) => {
            tracing::warn!(%status, flow_schema = name, "a status cannot be written");
        }
        _ => {}
    }
}

/// Makes what is missing, and brings to what it should be what nobody wants otherwise.
pub(crate) async fn maintain(handle: &Handle) -> Result<(), Status> {
    for wanted in flowcontrol::wanted() {
        let name = wanted.object["metadata"]["name"].as_str().unwrap_or_default();
        let collection = format!("{PATH}/{}", wanted.resource);
        let found = handle.server.find(GROUP, wanted.resource, "", name);
        let outcome = match found.and_then(|found| found.decode::<Value>().ok()) {
            None => send(handle, Method::POST, &collection, &wanted.object).await,
            Some(found) => match brought_up_to_date(&wanted, &found) {
                Some(object) => {
                    send(handle, Method::PUT, &format!("{collection}/{name}"), &object).await
                }
                None => continue,
            },
        };
        match outcome {
            // Somebody else was faster; the next round sees what he did.
            Err(s) if s.is(Reason::AlreadyExists) || s.is(Reason::Conflict) => {}
            result => result?,
        }
    }
    Ok(())
}

/// The object as it should be; `None` when it is, or when its owner wants it as it is.
fn brought_up_to_date(wanted: &Wanted, found: &Value) -> Option<Value> {
    let mut object = found.clone();
    let annotation = found["metadata"]["annotations"][AUTO_UPDATE].as_str();
    let is_ours = match annotation {
        _ if wanted.is_mandatory => true,
        Some(text) => text == "true",
        // Nobody has ever changed it.
        None => found["metadata"]["generation"] == 1,
    };
    let text = if is_ours { "true" } else { "false" };
    object["metadata"]["annotations"][AUTO_UPDATE] = json!(text);
    if is_ours {
        object["spec"] = specification(wanted);
    }
    (object != *found).then_some(object)
}

/// What is wanted, with its defaults, as it is stored.
fn specification(wanted: &Wanted) -> Value {
    let kind = wanted.object["kind"].as_str().unwrap_or_default();
    let gvk = GroupVersionKind::new(GROUP, "v1", kind);
    let mut object = wanted.object.clone();
    schema::apply_defaults(&gvk, &mut object);
    object["spec"].take()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(wanted: &Wanted, annotation: Option<&str>, generation: u32) -> Value {
        let mut object = wanted.object.clone();
        object["metadata"]["generation"] = json!(generation);
        object["spec"] = specification(wanted);
        match annotation {
            Some(text) => object["metadata"]["annotations"][AUTO_UPDATE] = json!(text),
            None => drop(crate::strategy::remove(&mut object["metadata"], "annotations")),
        }
        object
    }

    fn of(name: &str) -> Wanted {
        let mut all = flowcontrol::wanted().into_iter();
        let is_it = |wanted: &Wanted| wanted.object["metadata"]["name"] == name;
        all.find(|wanted| wanted.resource == LEVELS && is_it(wanted)).unwrap()
    }

    #[test]
    fn suggested_objects_belong_to_whoever_has_changed_them() {
        let system = of("system");
        assert_eq!(brought_up_to_date(&system, &stored(&system, Some("true"), 1)), None);
        let mut changed = stored(&system, Some("true"), 2);
        changed["spec"]["limited"]["nominalConcurrencyShares"] = json!(7);
        let repaired = brought_up_to_date(&system, &changed).unwrap();
        assert_eq!(repaired["spec"], specification(&system));
        changed["metadata"]["annotations"][AUTO_UPDATE] = json!("false");
        assert_eq!(brought_up_to_date(&system, &changed), None);
        let marked = |generation| {
            let found = brought_up_to_date(&system, &stored(&system, None, generation)).unwrap();
            found["metadata"]["annotations"][AUTO_UPDATE].clone()
        };
        assert_eq!((marked(1), marked(2)), (json!("true"), json!("false")));
    }

    #[test]
    fn mandatory_objects_belong_to_the_server() {
        let exempt = of("exempt");
        let mut changed = stored(&exempt, Some("false"), 3);
        changed["spec"]["exempt"]["lendablePercent"] = json!(50);
        let repaired = brought_up_to_date(&exempt, &changed).unwrap();
        assert_eq!(repaired["spec"], specification(&exempt));
        assert_eq!(repaired["metadata"]["annotations"][AUTO_UPDATE], "true");
    }
}
