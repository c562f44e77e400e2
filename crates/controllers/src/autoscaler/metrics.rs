//! What the metrics APIs say; others serve them.

use std::collections::BTreeMap;

use api::Typed;
use client::{Client, ClientError};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::Quantity;
use serde_json::Value;

use super::replicas::Sample;

/// The use of a resource by pods, or by one container of each: `metrics.k8s.io`.
pub(super) async fn resources(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, Sample>, String> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
    let failed = |why: String| format!("unable to get metrics for resource {resource}: {why}");
    let query = format!("labelSelector={}", escaped(selector));
    let list = get(client, &path, &query).await;
    let list = list.map_err(|error| {
        failed(format!("unable to fetch metrics from resource metrics API: {error}"))
    })?;
    let mut samples = BTreeMap::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        let containers = pod["containers"].as_array().into_iter().flatten();
        let wanted = containers.filter(|one| container.is_none_or(|name| one["name"] == name));
        let amounts: Option<Vec<i64>> =
            wanted.map(|one| quantity(&one["usage"][resource])).collect();
        // A pod of which a part is not known is not known.
        let Some(amounts) = amounts.filter(|amounts| !amounts.is_empty()) else { continue };
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        samples.insert(name, sample(pod, amounts.iter().sum()));
    }
    if samples.is_empty() {
        return Err(failed("no metrics returned from resource metrics API".to_owned()));
    }
    Ok(samples)
}

/// A metric of pods: `custom.metrics.k8s.io`.
pub(super) async fn of_pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: (&str, Option<&LabelSelector>),
) -> Result<BTreeMap<String, Sample>, String> {
    let path = format!("{}/namespaces/{namespace}/pods/*/{}", custom(client).await?, metric.0);
    let query = format!("labelSelector={}{}", escaped(selector), metric_selector(metric.1));
    let failed = |error| format!("unable to fetch metrics from custom metrics API: {error}");
    let list = get(client, &path, &query).await.map_err(failed)?;
    let mut samples = BTreeMap::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let Some(value) = quantity(&item["value"]) else { continue };
        let name = item["describedObject"]["name"].as_str().unwrap_or_default().to_owned();
        samples.insert(name, sample(item, value));
    }
    if samples.is_empty() {
        return Err("no metrics returned from custom metrics API".to_owned());
    }
    Ok(samples)
}

/// A metric of an object, in thousandths: `custom.metrics.k8s.io`.
pub(super) async fn of_object(
    client: &Client,
    namespace: &str,
    (resource, name): (&str, &str),
    metric: (&str, Option<&LabelSelector>),
) -> Result<i64, String> {
    let base = custom(client).await?;
    let path = format!("{base}/namespaces/{namespace}/{resource}/{name}/{}", metric.0);
    let query = metric_selector(metric.1);
    let failed = |error| format!("unable to fetch metrics from custom metrics API: {error}");
    let list = get(client, &path, query.trim_start_matches('&')).await.map_err(failed)?;
    let first = list["items"].get(0).and_then(|item| quantity(&item["value"]));
    first.ok_or_else(|| "no metrics returned from custom metrics API".to_owned())
}

/// The sum of a metric of something else, in thousandths: `external.metrics.k8s.io`.
pub(super) async fn external(
    client: &Client,
    namespace: &str,
    metric: (&str, Option<&LabelSelector>),
) -> Result<i64, String> {
    let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}", metric.0);
    let query = format!("labelSelector={}", escaped(&printed(metric.1)));
    let failed = |error| format!("unable to fetch metrics from external metrics API: {error}");
    let list = get(client, &path, &query).await.map_err(failed)?;
    let values: Vec<i64> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| quantity(&item["value"]))
        .collect();
    if values.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    Ok(values.iter().sum())
}

/// The newest version of the custom metrics that is served.
async fn custom(client: &Client) -> Result<String, String> {
    let root = "/apis/custom.metrics.k8s.io";
    let group = get(client, root, "")
        .await
        .map_err(|error| format!("unable to fetch metrics from custom metrics API: {error}"))?;
    let version = group["preferredVersion"]["version"].as_str().unwrap_or("v1beta2");
    Ok(format!("{root}/{version}"))
}

async fn get(client: &Client, path: &str, query: &str) -> Result<Value, ClientError> {
    let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let body = client.request(Method::GET, &path, "", bytes::Bytes::new()).await?;
    Value::from_json(&body).map_err(ClientError::decode)
}

fn sample(item: &Value, value: i64) -> Sample {
    let at = item["timestamp"].as_str().and_then(|text| text.parse().ok());
    // Windows are durations as Go prints them, or seconds.
    let window = item["window"].as_str().and_then(|text| text.parse().ok());
    let seconds = item["windowSeconds"].as_i64().map(SignedDuration::from_secs);
    Sample {
        at: at.unwrap_or(Timestamp::UNIX_EPOCH),
        window: window.or(seconds).unwrap_or(SignedDuration::from_mins(1)),
        value,
    }
}

fn quantity(value: &Value) -> Option<i64> {
    Some(value.as_str()?.parse::<Quantity>().ok()?.milli_value())
}

fn metric_selector(selector: Option<&LabelSelector>) -> String {
    match selector {
        None => String::new(),
        Some(selector) => format!("&metricLabelSelector={}", escaped(&printed(Some(selector)))),
    }
}

/// A selector as it is written in a query.
pub(super) fn printed(selector: Option<&LabelSelector>) -> String {
    crate::selection::printed(selector)
}

/// Percent-encoding of everything that a value of a query may not have.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_queries_are_escaped() {
        assert_eq!(escaped("a=b,c in (d)"), "a%3Db%2Cc%20in%20%28d%29");
    }

    #[test]
    fn samples_are_read_as_they_are_served() {
        let item = json!({ "timestamp": "2026-01-01T00:00:00Z", "window": "1m30s" });
        let read = sample(&item, 5);
        assert_eq!((read.window, read.value), (SignedDuration::from_secs(90), 5));
        assert_eq!(read.at.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(quantity(&json!("250m")), Some(250));
    }
}
