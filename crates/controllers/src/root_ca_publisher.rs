//! Publishes the root CA in every namespace, as ConfigMap `kube-root-ca.crt`.

use std::collections::BTreeMap;

use client::{ClientError, Outcome};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::ObjectKey;

use crate::cluster::ROOT_CA;
use crate::context::Context;
use crate::service_account::{LOOK_AGAIN, is_active};

const KEY: &str = "ca.crt";
/// Upstream's annotation and text that tells people what the ConfigMap is for.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
     guaranteed across distributions of Kubernetes clusters.",
);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let queue = ctx.queue("root_ca_cert_publisher");
    let client = ctx.client("root-ca-cert-publisher");
    let informers = &ctx.informers;
    tokio::join!(informers.namespaces.synced(), informers.root_cas.synced());
    informers.namespaces.on_change({
        let queue = queue.clone();
        move |key, _| queue.add(key.clone())
    });
    informers.root_cas.on_change({
        let queue = queue.clone();
        move |key, _| queue.add(ObjectKey::cluster(&key.namespace))
    });
    let shutdown = ctx.shutdown.clone();
    let sync = move |key: ObjectKey| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move {
            let informers = &ctx.informers;
            if !informers.namespaces.get(&key).is_some_and(|ns| is_active(&ns)) {
                return Ok(Outcome::Done);
            }
            let present = informers.root_cas.get(&ObjectKey::new(&key.name, ROOT_CA));
            match wanted(present.as_deref(), &key.name, &ctx.config.root_ca) {
                None => Ok(Outcome::Done),
                Some(map) => {
                    let begun = ctx.clock.monotonic();
                    let written = write(&client, &key.name, map, present.is_some()).await;
                    let code = match &written {
                        Ok(_) => "200".to_owned(),
                        Err(error) => error.status().map_or(500, |status| status.code).to_string(),
                    };
                    let took = ctx.clock.monotonic().duration_since(begun).as_secs_f64();
                    ctx.counts.root_ca_syncs.with_label_values(&[&code]).inc();
                    ctx.counts.root_ca_seconds.with_label_values(&[&code]).observe(took);
                    written
                }
            }
        }
    };
    queue.run(shutdown, sync).await;
}

/// The ConfigMap to write, `None` when the present one is as it should be.
fn wanted(present: Option<&ConfigMap>, namespace: &str, root_ca: &str) -> Option<ConfigMap> {
    let data = BTreeMap::from([(KEY.to_owned(), root_ca.to_owned())]);
    let (key, text) = DESCRIPTION;
    let Some(present) = present else {
        let metadata = ObjectMeta {
            name: Some(ROOT_CA.to_owned()),
            namespace: Some(namespace.to_owned()),
            annotations: Some(BTreeMap::from([(key.to_owned(), text.to_owned())])),
            ..ObjectMeta::default()
        };
        return Some(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() });
    };
    let annotations = present.metadata.annotations.as_ref();
    let described = annotations.is_some_and(|all| all.contains_key(key));
    if described && present.data.as_ref() == Some(&data) {
        return None;
    }
    let mut map = present.clone();
    map.data = Some(data);
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), text.to_owned());
    Some(map)
}

async fn write(
    client: &client::Client,
    namespace: &str,
    map: ConfigMap,
    exists: bool,
) -> Result<Outcome, ClientError> {
    let maps = client.api(namespace);
    let result = if exists { maps.update(&map).await } else { maps.create(&map).await };
    match result {
        Ok(_) => Ok(Outcome::RequeueAfter(LOOK_AGAIN)),
        Err(error) if error.is_already_exists() => Ok(Outcome::RequeueAfter(LOOK_AGAIN)),
        Err(error) if error.is_namespace_terminating() => Ok(Outcome::Done),
        // Also when something is not found: the server may not have heard of the namespace yet, or
        // the informer not of the end of the map.
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_changed_map_is_written() {
        let made = wanted(None, "n", "PEM").unwrap();
        assert_eq!(made.data.as_ref().unwrap()[KEY], "PEM");
        assert_eq!(wanted(Some(&made), "n", "PEM"), None);
        let renewed = wanted(Some(&made), "n", "OTHER").unwrap();
        assert_eq!(renewed.data.unwrap()[KEY], "OTHER");
    }
}
