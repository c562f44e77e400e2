//! A user who does what comes to mind.

mod specs;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use self::specs::spec;
use crate::checks::{is_active, target};
use crate::nodes::text;
use crate::storage::claims_of;
use crate::world::World;

/// Where the user works. The last one goes and comes.
pub(crate) const NAMESPACES: [&str; 3] = ["a", "b", "c"];

/// Collections of what the user makes, and where they are served.
const KINDS: [(&str, &str); 14] = [
    ("apps/deployments", "/apis/apps/v1"),
    ("apps/statefulsets", "/apis/apps/v1"),
    ("apps/daemonsets", "/apis/apps/v1"),
    ("apps/replicasets", "/apis/apps/v1"),
    ("batch/jobs", "/apis/batch/v1"),
    ("batch/cronjobs", "/apis/batch/v1"),
    ("policy/poddisruptionbudgets", "/apis/policy/v1"),
    ("/services", "/api/v1"),
    ("/resourcequotas", "/api/v1"),
    ("/replicationcontrollers", "/api/v1"),
    ("autoscaling/horizontalpodautoscalers", "/apis/autoscaling/v2"),
    ("example.com/widgets", "/apis/example.com/v1"),
    ("/configmaps", "/api/v1"),
    ("/persistentvolumeclaims", "/api/v1"),
];
/// Objects of a kind in a namespace.
const NAMES: usize = 2;

/// A node that the user wants for something else at times, and how that is said.
const TAINTED: &str = "node-3";
pub(crate) const TAINT: &str = "example.com/maintenance";

/// The user.
pub(crate) struct User {
    world: Arc<World>,
    /// The pods that are being evicted: namespace and `app`.
    emptied: Mutex<Option<(String, String)>>,
}

impl User {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), emptied: Mutex::default() }
    }

    /// Does one thing.
    pub(crate) fn act(&self) {
        let what = self.world.dice().below(26);
        match what {
            0..=6 => self.create(),
            7..=9 => self.scale(),
            10..=12 => self.renew(),
            13..=14 => self.delete(),
            15..=16 => self.evict(),
            17 => self.delete_pod(),
            18 => self.relabel(),
            19 => self.taint(),
            20 => self.load(),
            21 => self.give(),
            22..=23 => self.evict(),
            _ => self.namespace(),
        }
    }

    /// Leaves only what comes to rest: nothing that begins by the clock, and quotas with room.
    pub(crate) fn rest(&self) {
        self.world.trace("the user rests");
        let patches = [
            ("batch/cronjobs", json!({ "spec": { "suspend": true } })),
            ("batch/jobs", json!({ "spec": { "suspend": false } })),
            ("apps/deployments", json!({ "spec": { "paused": false } })),
            ("/resourcequotas", json!({ "spec": { "hard": { "pods": "1000" } } })),
        ];
        for (collection, patch) in patches {
            let names: Vec<(String, String)> = {
                let api = self.world.api();
                let all = api.all(collection);
                all.map(|one| {
                    (
                        text(&one["metadata"]["namespace"]).to_owned(),
                        text(&one["metadata"]["name"]).to_owned(),
                    )
                })
                .collect()
            };
            for (namespace, name) in names {
                let path = path(collection, &namespace, &name);
                self.write("MERGE", &path, &patch);
            }
        }
        for namespace in NAMESPACES {
            if self.world.api().get("/namespaces", "", namespace).is_none() {
                self.make_namespace(namespace);
            }
        }
    }

    /// Pods that may stay for a while are placed where they may not stay, again and again; those
    /// that need a volume there, or are for that node, have nowhere else to go.
    fn untaint(&self) {
        let is_needed = {
            let api = self.world.api();
            let node = api.get("/nodes", "", TAINTED);
            let taints = node.and_then(|node| node["spec"]["taints"].as_array());
            let taint = taints.into_iter().flatten().find(|taint| taint["key"] == TAINT);
            let is_patient = |set: &Value| {
                let tolerations = &set["spec"]["template"]["spec"]["tolerations"];
                taint.is_some_and(|taint| taint["effect"] == "NoExecute") && tolerations.is_array()
            };
            let waits = |pod: &Value| pod["spec"]["nodeName"].is_null() && target(pod) == TAINTED;
            taint.is_some()
                && (api.all("apps/deployments").any(is_patient)
                    || api.all("apps/replicasets").any(is_patient)
                    || api.all("/pods").any(waits)
                    || api.all("/persistentvolumes").next().is_some())
        };
        if is_needed {
            self.taint();
        }
    }

    /// Makes claims that pods wait for, and ends pods whose claim is to go, or came after them. Of
    /// those that have ended some hold a claim: those of Jobs stay as long as the Job does.
    pub(crate) fn tend(&self) {
        self.untaint();
        let (mut missing, mut held) = (BTreeSet::new(), Vec::new());
        {
            let api = self.world.api();
            let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
            for pod in api.all("/pods").filter(stays) {
                let namespace = text(&pod["metadata"]["namespace"]);
                for name in claims_of(pod) {
                    match api.get("/persistentvolumeclaims", namespace, &name) {
                        None if is_active(pod) && is_users(pod, &name) => {
                            missing.insert((namespace.to_owned(), name));
                        }
                        Some(claim) if claim["metadata"]["deletionTimestamp"].is_string() => {
                            held.push(path_of("/pods", pod));
                        }
                        // It was placed for a claim of that name that is gone: no one chooses a
                        // node for the new one, upstream neither.
                        Some(claim)
                            if is_active(pod)
                                && text(&claim["spec"]["volumeName"]).is_empty()
                                && !text(&pod["spec"]["nodeName"]).is_empty() =>
                        {
                            held.push(path_of("/pods", pod));
                        }
                        _ => {}
                    }
                }
            }
        }
        for (namespace, name) in missing {
            let claim = json!({ "metadata": { "name": name }, "spec": specs::claim(0) });
            self.write("POST", &path("/persistentvolumeclaims", &namespace, ""), &claim);
        }
        for path in held {
            self.write("DELETE", &path, &json!({}));
        }
    }

    /// Makes a namespace.
    pub(crate) fn make_namespace(&self, name: &str) {
        let object = json!({ "metadata": { "name": name } });
        self.write("POST", "/api/v1/namespaces", &object);
    }

    fn write(&self, method: &str, path: &str, body: &Value) {
        let refused = self.world.write("user", method, path, body).err();
        let refused = refused.map(|status| format!(" is refused: {}", status.message));
        self.world.trace(&format!("user: {method} {path}{}", refused.unwrap_or_default()));
    }

    fn namespace_of(&self) -> &'static str {
        NAMESPACES[self.world.dice().below(NAMESPACES.len())]
    }

    fn create(&self) {
        let namespace = self.namespace_of();
        let (collection, name, spec) = {
            let mut dice = self.world.dice();
            // What only time starts is made more often: it takes longest to show anything.
            let cron = "batch/cronjobs";
            let collection = if dice.chance(80) { cron } else { KINDS[dice.below(KINDS.len())].0 };
            let name = format!("w{}", dice.below(NAMES));
            let number = dice.below(5);
            let other = dice.below(3);
            (collection, name.clone(), spec(collection, &name, number, other))
        };
        let mut object = json!({ "metadata": { "name": name } });
        if spec.is_object() {
            object["spec"] = spec;
        }
        self.write("POST", &path(collection, namespace, ""), &object);
    }

    /// One of these objects.
    fn any(&self, collections: &[&str]) -> Option<(String, Value)> {
        let all: Vec<(String, Value)> = {
            let api = self.world.api();
            let mut all = Vec::new();
            for collection in collections {
                for one in api.all(collection) {
                    // Those of the user, not those that controllers make.
                    let owned = one["metadata"]["ownerReferences"].is_array();
                    if !owned || ["/pods", "/persistentvolumeclaims"].contains(collection) {
                        all.push(((*collection).to_owned(), one.clone()));
                    }
                }
            }
            all
        };
        self.world.dice().pick(&all).cloned()
    }

    fn change(&self, collections: &[&str], patch: impl Fn(&Value, usize) -> Value) {
        let Some((collection, object)) = self.any(collections) else { return };
        let number = self.world.dice().below(6);
        let patch = patch(&object, number);
        self.write("MERGE", &path_of(&collection, &object), &patch);
    }

    fn scale(&self) {
        let kinds = [
            "apps/deployments",
            "apps/statefulsets",
            "apps/replicasets",
            "/replicationcontrollers",
            "batch/jobs",
        ];
        self.change(&kinds, |object, number| {
            if object["kind"] == "Job" {
                json!({ "spec": { "parallelism": number, "suspend": number == 5 } })
            } else {
                json!({ "spec": { "replicas": number } })
            }
        });
    }

    fn renew(&self) {
        let kinds = ["apps/deployments", "apps/statefulsets", "apps/daemonsets"];
        self.change(&kinds, |_, number| {
            let image = format!("image-{number}");
            json!({ "spec": { "template": { "spec": {
                "containers": [{ "name": "c", "image": image }] } } } })
        });
    }

    fn delete(&self) {
        let kinds: Vec<&str> = KINDS.iter().map(|(collection, _)| *collection).collect();
        let Some((collection, object)) = self.any(&kinds) else { return };
        let how = {
            let policies = ["Foreground", "Background", "Background", "Orphan"];
            let mut dice = self.world.dice();
            json!({ "propagationPolicy": policies[dice.below(policies.len())] })
        };
        self.write("DELETE", &path_of(&collection, &object), &how);
    }

    /// Makes something that belongs to something else, or to two of them.
    fn give(&self) {
        let owners =
            ["example.com/widgets", "example.com/widgets", "/configmaps", "apps/deployments"];
        let Some((_, first)) = self.any(&owners) else { return };
        let (other, is_widget, number) = {
            let mut dice = self.world.dice();
            (dice.chance(300), dice.chance(500), dice.below(4))
        };
        let second = if other { self.any(&owners) } else { None };
        let namespace = text(&first["metadata"]["namespace"]);
        let mut references = vec![reference(&first)];
        let second = second.map(|(_, second)| second);
        let fits = |second: &&Value| {
            second["metadata"]["namespace"] == *namespace
                && second["metadata"]["uid"] != first["metadata"]["uid"]
        };
        references.extend(second.as_ref().filter(fits).map(reference));
        let collection = if is_widget { "example.com/widgets" } else { "/configmaps" };
        let object = json!({ "metadata": { "name": format!("of-{number}"),
            "ownerReferences": references } });
        self.write("POST", &path(collection, namespace, ""), &object);
    }

    /// Gives the pods of a deployment more to do, or less.
    fn load(&self) {
        let Some((_, deployment)) = self.any(&["apps/deployments"]) else { return };
        let load = [0, 40, 100, 250, 420, 900][self.world.dice().below(6)];
        let (namespace, name) =
            (text(&deployment["metadata"]["namespace"]), text(&deployment["metadata"]["name"]));
        let app = format!("deployments-{name}");
        self.world.trace(&format!("user: {namespace}/{app} has {load}m to do"));
        self.world.api().set_load(namespace, &app, load);
    }

    /// Drives pods from a node, or lets them come back.
    fn taint(&self) {
        let path = format!("/api/v1/nodes/{TAINTED}");
        let node = self.world.api().get("/nodes", "", TAINTED).cloned();
        let Some(node) = node else { return };
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let mut others: Vec<Value> =
            taints.iter().filter(|taint| taint["key"] != TAINT).cloned().collect();
        if others.len() == taints.len() {
            let effect = if self.world.dice().chance(500) { "NoExecute" } else { "NoSchedule" };
            others.push(json!({ "key": TAINT, "effect": effect }));
        }
        let version = &node["metadata"]["resourceVersion"];
        let change = json!({ "metadata": { "resourceVersion": version },
            "spec": { "taints": others } });
        self.write("MERGE", &path, &change);
    }

    fn evict(&self) {
        let Some((_, pod)) = self.any(&["/pods"]) else { return };
        let app = text(&pod["metadata"]["labels"]["app"]).to_owned();
        let chosen = (text(&pod["metadata"]["namespace"]).to_owned(), app);
        // Those who empty a node go on until nothing is left.
        let mut emptied = self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        let (namespace, app) = match &*emptied {
            Some(emptied) if self.world.dice().chance(800) => emptied.clone(),
            _ => emptied.insert(chosen).clone(),
        };
        let pods: Vec<Value> = {
            let api = self.world.api();
            let of = |pod: &&Value| {
                pod["metadata"]["namespace"] == *namespace
                    && pod["metadata"]["labels"]["app"] == *app
                    && is_active(pod)
            };
            api.all("/pods").filter(of).cloned().collect()
        };
        let Some(pod) = self.world.dice().pick(&pods).cloned() else { return };
        self.write("POST", &format!("{}/eviction", path_of("/pods", &pod)), &json!({}));
    }

    fn delete_pod(&self) {
        let Some((_, pod)) = self.any(&["/pods"]) else { return };
        let now = self.world.dice().chance(300);
        let how = if now { json!({ "gracePeriodSeconds": 0 }) } else { json!({}) };
        self.write("DELETE", &path_of("/pods", &pod), &how);
    }

    /// Takes a pod out of its workload, or puts it back.
    fn relabel(&self) {
        let Some((_, pod)) = self.any(&["/pods"]) else { return };
        // A pod of a stateful set would keep the name that its successor needs.
        let owner = &pod["metadata"]["ownerReferences"][0]["kind"];
        if !pod["metadata"]["labels"]["app"].is_string() || owner == "StatefulSet" {
            return;
        }
        let out = json!({ "metadata": { "labels": { "app": "none" } } });
        self.write("MERGE", &path_of("/pods", &pod), &out);
    }

    fn namespace(&self) {
        let last = NAMESPACES[NAMESPACES.len() - 1];
        if self.world.api().get("/namespaces", "", last).is_some() {
            self.write("DELETE", &format!("/api/v1/namespaces/{last}"), &json!({}));
        } else {
            self.make_namespace(last);
        }
    }
}

/// Whether nobody else makes a claim that a pod waits for: pods of a set that is gone have claims of
/// their own, too.
fn is_users(pod: &Value, claim: &str) -> bool {
    let is_alone = pod["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty);
    let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    !claim.contains('-')
        || (is_alone
            && volumes.any(|volume| volume["persistentVolumeClaim"]["claimName"] == *claim))
}

/// A reference to an owner.
fn reference(owner: &Value) -> Value {
    json!({ "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": true })
}

fn path_of(collection: &str, object: &Value) -> String {
    let meta = &object["metadata"];
    path(collection, text(&meta["namespace"]), text(&meta["name"]))
}

fn path(collection: &str, namespace: &str, name: &str) -> String {
    let served = KINDS.iter().find(|(kind, _)| *kind == collection);
    let served = served.map_or("/api/v1", |(_, served)| served);
    let resource = collection.split_once('/').map_or("", |(_, resource)| resource);
    let path = format!("{served}/namespaces/{namespace}/{resource}/{name}");
    path.trim_end_matches('/').to_owned()
}
