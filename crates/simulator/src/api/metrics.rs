//! What pods use, as `metrics.k8s.io` tells it: a load that the ready ones of an app share.

use meta::Reason;
use serde_json::{Value, json};

use super::{Answer, Api, Asked, Selection, failure};
use crate::checks::is_active;
use crate::nodes::{is_ready, text};

impl Api {
    /// Gives all pods of an app together this load, in thousandths of a processor.
    pub(crate) fn set_load(&mut self, namespace: &str, app: &str, milli: i64) {
        self.loads.insert((namespace.to_owned(), app.to_owned()), milli);
    }

    /// The load of an app.
    pub(crate) fn load(&self, namespace: &str, app: &str) -> i64 {
        let key = (namespace.to_owned(), app.to_owned());
        self.loads.get(&key).copied().unwrap_or(100)
    }

    /// Answers a request for the metrics of pods.
    pub(crate) fn metrics(&self, asked: Asked<'_>, path: &str, query: &str) -> Answer {
        let selection = Selection::parse(query)?;
        let namespace = path
            .strip_prefix("/apis/metrics.k8s.io/v1beta1/namespaces/")
            .and_then(|rest| rest.strip_suffix("/pods"))
            .ok_or_else(|| failure(Reason::NotFound, "no such metrics"))?;
        let uses = |pod: &&Value| {
            pod["metadata"]["namespace"] == *namespace && is_active(pod) && is_ready(pod)
        };
        let pods: Vec<&Value> = self.all("/pods").filter(uses).collect();
        let items = pods.iter().filter(|pod| selection.matches(pod)).map(|pod| {
            let app = &pod["metadata"]["labels"]["app"];
            let sharing = pods.iter().filter(|other| other["metadata"]["labels"]["app"] == *app);
            let sharing = i64::try_from(sharing.count()).unwrap_or(1);
            let part = self.load(namespace, text(app)) / sharing;
            json!({ "metadata": { "name": pod["metadata"]["name"], "namespace": namespace },
                "timestamp": meta::time::rfc3339(asked.now), "window": "10s",
                "containers": [{ "name": "c", "usage": { "cpu": format!("{part}m") } }] })
        });
        Ok(json!({ "kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1",
            "items": items.collect::<Vec<_>>() }))
    }
}
