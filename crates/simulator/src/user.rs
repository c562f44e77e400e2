//! A user who does what comes to mind.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::nodes::text;
use crate::world::World;

/// Where the user works. The last one goes and comes.
pub(crate) const NAMESPACES: [&str; 3] = ["a", "b", "c"];

/// Collections of what the user makes, and where they are served.
const KINDS: [(&str, &str); 10] = [
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
];
/// Objects of a kind in a namespace.
const NAMES: usize = 2;

/// The user.
pub(crate) struct User {
    world: Arc<World>,
}

impl User {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world) }
    }

    /// Does one thing.
    pub(crate) fn act(&self) {
        let what = self.world.dice().below(20);
        match what {
            0..=6 => self.create(),
            7..=9 => self.scale(),
            10..=12 => self.renew(),
            13..=14 => self.delete(),
            15..=16 => self.evict(),
            17 => self.delete_pod(),
            18 => self.relabel(),
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
            let (collection, _) = KINDS[dice.below(KINDS.len())];
            let name = format!("w{}", dice.below(NAMES));
            let number = dice.below(5);
            let other = dice.below(3);
            (collection, name.clone(), spec(collection, &name, number, other))
        };
        let object = json!({ "metadata": { "name": name }, "spec": spec });
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
                    if !owned || *collection == "/pods" {
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

    fn evict(&self) {
        let Some((_, pod)) = self.any(&["/pods"]) else { return };
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

fn spec(collection: &str, name: &str, number: usize, other: usize) -> Value {
    // Labels differ by kind, so that only budgets and services select others' pods.
    let (_, resource) = collection.split_once('/').unwrap_or_default();
    let labels = json!({ "app": format!("{resource}-{name}") });
    let selector = json!({ "matchLabels": labels });
    let template = |restart: &str| {
        json!({ "metadata": { "labels": labels }, "spec": { "restartPolicy": restart,
            "containers": [{ "name": "c", "image": "image-0" }] } })
    };
    let job = || {
        let mut job = json!({ "parallelism": other + 1, "completions": number + 1,
            "template": template("Never") });
        if number == 2 {
            job["completionMode"] = "Indexed".into();
        }
        job
    };
    let whose = ["deployments", "statefulsets", "daemonsets"][other];
    let policy = ["Allow", "Forbid", "Replace"][other];
    let of_others = json!({ "app": format!("{whose}-{name}") });
    match resource {
        "deployments" => json!({ "replicas": number, "selector": selector,
            "strategy": if other == 0 { json!({ "type": "Recreate" }) } else {
                json!({ "rollingUpdate": { "maxSurge": other, "maxUnavailable": number % 2 } })
            },
            "template": template("Always") }),
        "replicasets" => json!({ "replicas": number, "selector": selector,
            "template": template("Always") }),
        "replicationcontrollers" => json!({ "replicas": number, "selector": labels,
            "template": template("Always") }),
        "statefulsets" => json!({ "replicas": number, "selector": selector, "serviceName": "s",
            "podManagementPolicy": if other == 0 { "Parallel" } else { "OrderedReady" },
            "template": template("Always") }),
        "daemonsets" => json!({ "selector": selector, "template": template("Always"),
            "updateStrategy": if other == 0 { json!({ "type": "RollingUpdate",
                "rollingUpdate": { "maxUnavailable": number + 1 } }) } else { json!({}) } }),
        "jobs" => job(),
        "cronjobs" => json!({ "schedule": "* * * * *",
            "concurrencyPolicy": policy,
            "jobTemplate": { "spec": job() } }),
        "poddisruptionbudgets" => json!({ "minAvailable": number / 2,
            "selector": { "matchLabels": of_others } }),
        "services" => json!({ "selector": of_others, "ports": [{ "port": 80 }] }),
        _ => json!({ "hard": { "pods": (5 + number * 3).to_string() } }),
    }
}
