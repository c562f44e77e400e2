//! Watches of the resources that some quota counts: what is deleted is given back at once.
//!
//! A watch is started when the first quota names its resource. Without quotas there is none.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::quota::{Usage, counts, of};
use client::{Change, ClientError, Informer, InformerConfig, ListOptions, ResourcePath};
use k8s_openapi::api::core::v1::ResourceQuota;
use meta::Object;
use serde_json::Value;

use super::{Controller, REDISCOVER, group_resource, has_amounts};
use crate::discovery::{Discovered, discover};

/// Events come and go on their own, and are not counted: as upstream.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// A new object was charged when it was written. Counting soon after repairs what a count that was
/// under way meanwhile has missed.
const AFTER_CREATION: Duration = Duration::from_secs(1);

/// What is watched, and what discovery said.
#[derive(Default)]
pub(super) struct Monitors {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    served: Arc<[Discovered]>,
    asked: Option<Instant>,
    /// The watches, by what they are of; each ends with the controller.
    running: BTreeSet<Discovered>,
}

/// The resources that the quota counts, all of them watched, and whether each name that it limits
/// is of one.
pub(super) async fn counted(
    controller: &Arc<Controller>,
    quota: &ResourceQuota,
) -> Result<(Vec<Discovered>, bool), ClientError> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let names: Vec<&String> = hard.into_iter().flatten().map(|(name, _)| name).collect();
    let is_of = |resource: &Discovered, name: &str| counts(&group_resource(resource), name);
    let served = served(controller).await?;
    let counted: Vec<Discovered> =
        served.iter().filter(|r| names.iter().any(|name| is_of(r, name))).cloned().collect();
    let is_complete = names.iter().all(|name| counted.iter().any(|r| is_of(r, name)));
    for resource in &counted {
        watch(controller, resource);
    }
    Ok((counted, is_complete))
}

/// What can be counted, not older than half a minute.
async fn served(controller: &Arc<Controller>) -> Result<Arc<[Discovered]>, ClientError> {
    let now = controller.ctx.clock.monotonic();
    {
        let state = controller.monitors.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |asked: Instant| now.duration_since(asked) < REDISCOVER;
        if state.asked.is_some_and(is_fresh) {
            return Ok(Arc::clone(&state.served));
        }
    }
    let discovery = discover(&controller.client).await?;
    let served: Arc<[Discovered]> = discovery
        .resources
        .into_iter()
        .filter(|r| r.namespaced && r.can(&["create", "delete", "list", "watch"]))
        .filter(|r| !IGNORED.contains(&(r.group.as_str(), r.resource.as_str())))
        .collect();
    let mut state = controller.monitors.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.served = Arc::clone(&served);
    // An incomplete answer is not kept.
    state.asked = discovery.failures.is_empty().then_some(now);
    Ok(served)
}

fn watch(controller: &Arc<Controller>, resource: &Discovered) {
    {
        let mut state = controller.monitors.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.running.insert(resource.clone()) {
            return;
        }
    }
    let config = InformerConfig {
        path: ResourcePath::new(resource.gvr()),
        namespace: String::new(),
        options: ListOptions::all(),
    };
    let (name, has_amounts) = (group_resource(resource), has_amounts(resource));
    let ctx = &controller.ctx;
    let (clock, counted) = (Arc::clone(&ctx.clock), name.clone());
    let project = move |object: &Object| {
        if !has_amounts {
            return Ok(Usage::new());
        }
        Ok(of(&counted, &object.decode::<Value>()?, clock.now()))
    };
    let lister = Informer::spawn(&controller.client, &ctx.clock, config, &ctx.shutdown, project);
    let this = Arc::clone(controller);
    lister.on_change(move |key, change| {
        let delay = match change {
            Change::Added(_) => Some(AFTER_CREATION),
            Change::Updated { old, new } if old == new => return,
            Change::Updated { .. } | Change::Deleted(_) => None,
        };
        for quota in this.ctx.informers.resource_quotas.list_namespace(&key.namespace) {
            let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
            if !hard.into_iter().flatten().any(|(limited, _)| counts(&name, limited)) {
                continue;
            }
            let quota = crate::selection::key_of(&quota.metadata);
            match delay {
                Some(delay) => this.queue.add_after(quota, delay),
                None => this.queue.add(quota),
            }
        }
    });
}
