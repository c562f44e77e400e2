//! Marks tokens invalid that were made for accounts and that nobody uses, and removes them when
//! nobody misses them, as upstream's `LegacySATokenCleaner`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::{Client, ClientError, DeleteOptions, ListOptions, Patch};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use meta::ObjectKey;
use serde_json::{Value, json};

use crate::context::Context;
use crate::service_account_token::{INVALID_SINCE, SecretView};

/// Upstream's interval.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Where the API server says since when it notes which tokens are used.
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("legacy-service-account-token-cleaner");
    let informers = &ctx.informers;
    tokio::join!(informers.service_accounts.synced(), informers.token_secrets.synced());
    loop {
        if let Err(error) = clean(&ctx, &client).await {
            tracing::error!(%error, "tokens that nobody uses cannot be cleaned up");
        }
        tokio::select! {
            () = ctx.clock.sleep(EVERY) => {}
            () = ctx.shutdown.begun() => return,
        }
    }
}

async fn clean(ctx: &Context, client: &Client) -> Result<(), ClientError> {
    let now = ctx.clock.now();
    let tracking = client.api::<ConfigMap>("kube-system").get_opt(TRACKING).await?;
    let since = tracking.and_then(|map| map.data?.remove("since"));
    let Some(times) = since.and_then(|since| Times::new(now, &since, ctx.config.unused_tokens))
    else {
        return Ok(());
    };
    let mut mounted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for secret in ctx.informers.token_secrets.list() {
        let Some(secret) = secret.as_ref() else { continue };
        let Some(step) = times.step(secret) else { continue };
        if !is_generated(ctx, secret) {
            continue;
        }
        if !mounted.contains_key(&secret.namespace) {
            // The cleaner itself may read no pods.
            let pods = ctx.manager.api::<Pod>(&secret.namespace);
            let mut names = BTreeSet::new();
            for pod in pods.list_objects(&ListOptions::all()).await?.items {
                let pod: Value = pod.decode().map_err(ClientError::decode)?;
                named(&pod["spec"], &mut names);
            }
            mounted.insert(secret.namespace.clone(), names);
        }
        if !mounted.get(&secret.namespace).is_some_and(|names| names.contains(&secret.name)) {
            take(client, secret, step, &times.today).await?;
        }
    }
    Ok(())
}

/// Whether it is for an account that names it: only those were not made by people.
fn is_generated(ctx: &Context, secret: &SecretView) -> bool {
    let key = ObjectKey::new(&secret.namespace, &secret.account);
    ctx.informers.service_accounts.get(&key).is_some_and(|account| {
        (secret.account_uid.is_empty() || secret.account_uid == account.uid)
            && account.secrets.contains(&secret.name)
    })
}

async fn take(
    client: &Client,
    secret: &SecretView,
    step: Step,
    today: &str,
) -> Result<(), ClientError> {
    let secrets = client.api::<Secret>(&secret.namespace);
    let result = match step {
        Step::Mark => {
            let labels = json!({ INVALID_SINCE: today });
            let patch = json!({ "metadata": { "uid": secret.uid, "labels": labels } });
            secrets.patch(&secret.name, &Patch::Merge(patch)).await.map(drop)
        }
        Step::Remove => {
            let options = DeleteOptions {
                resource_version: Some(secret.version),
                ..DeleteOptions::default()
            };
            secrets.delete(&secret.name, &options).await
        }
    };
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Mark,
    Remove,
}

/// Days of UTC, which compare as texts.
struct Times {
    /// What was made before this is old.
    before: Timestamp,
    /// Uses and marks before this are.
    day: String,
    today: String,
}

impl Times {
    /// Nothing as long as it is not known for the whole period which tokens are used.
    fn new(now: Timestamp, tracked_since: &str, period: SignedDuration) -> Option<Self> {
        let before = now.checked_sub(period).ok()?;
        // Tracking may have begun at the end of that day.
        let tracked = tracked_since.parse::<Date>().ok()?.checked_add(1.day()).ok()?;
        let tracked = tracked.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let day = |time: Timestamp| time.to_zoned(TimeZone::UTC).date().to_string();
        (before >= tracked).then(|| Self { before, day: day(before), today: day(now) })
    }

    /// What is to be done with a token, if nothing else speaks for it.
    fn step(&self, secret: &SecretView) -> Option<Step> {
        if secret.is_deleted || secret.created.is_none_or(|created| created >= self.before) {
            return None;
        }
        // A day that cannot be read may be any.
        let is_used = secret
            .last_used
            .as_ref()
            .is_some_and(|day| day.parse::<Date>().is_err() || *day >= self.day);
        if is_used {
            return None;
        }
        match secret.invalid_since.as_ref().filter(|day| day.parse::<Date>().is_ok()) {
            None => Some(Step::Mark),
            Some(day) => (*day < self.day).then_some(Step::Remove),
        }
    }
}

/// Collects the names of Secrets that something of a pod names.
fn named(value: &Value, names: &mut BTreeSet<String>) {
    const REFERENCES: [&str; 4] = ["imagePullSecrets", "secret", "secretKeyRef", "secretRef"];
    let mut keep = |name: &Value| names.extend(name.as_str().map(str::to_owned));
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if field == "secretName" {
                    keep(value);
                } else if REFERENCES.contains(&field.as_str()) || field.ends_with("SecretRef") {
                    keep(&value["name"]);
                    value.as_array().into_iter().flatten().for_each(|it| keep(&it["name"]));
                }
            }
            fields.values().for_each(|value| named(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| named(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-06-15T12:00:00Z";
    const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

    fn step(labels: &Value, created: &str) -> Option<Step> {
        let secret = json!({ "type": crate::service_account_token::TYPE,
            "metadata": { "name": "s", "creationTimestamp": created, "labels": labels } });
        let secret: Secret = serde_json::from_value(secret).unwrap();
        let times = Times::new(NOW.parse().unwrap(), "2024-01-01", YEAR).unwrap();
        times.step(&SecretView::of(&secret).unwrap())
    }

    #[test]
    fn nothing_is_unused_that_was_not_watched_long_enough() {
        let begun = |since: &str| Times::new(NOW.parse().unwrap(), since, YEAR).is_some();
        assert!(begun("2025-06-14"));
        assert!(!begun("2025-06-15"));
        assert!(!begun("yesterday"));
    }

    #[test]
    fn tokens_are_marked_and_a_year_later_removed() {
        const OLD: &str = "2024-01-01T00:00:00Z";
        let used = |day: &str| json!({ "kubernetes.io/legacy-token-last-used": day });
        assert_eq!(step(&json!({}), OLD), Some(Step::Mark));
        assert_eq!(step(&json!({}), "2025-06-15T12:00:00Z"), None, "it is new");
        assert_eq!(step(&used("2025-06-15"), OLD), None);
        assert_eq!(step(&used("2025-06-14"), OLD), Some(Step::Mark));
        assert_eq!(step(&used("often"), OLD), None);
        let marked = |day: &str| json!({ INVALID_SINCE: day });
        assert_eq!(step(&marked("2025-06-15"), OLD), None);
        assert_eq!(step(&marked("2025-06-14"), OLD), Some(Step::Remove));
        assert_eq!(step(&marked("long"), OLD), Some(Step::Mark));
    }

    #[test]
    fn every_way_to_name_a_secret_is_seen() {
        let spec = json!({
            "imagePullSecrets": [{ "name": "a" }],
            "volumes": [{ "secret": { "secretName": "b" } },
                { "projected": { "sources": [{ "secret": { "name": "c" } }] } },
                { "csi": { "nodePublishSecretRef": { "name": "d" } } },
                { "configMap": { "name": "no" } }],
            "containers": [{ "envFrom": [{ "secretRef": { "name": "e" } }],
                "env": [{ "valueFrom": { "secretKeyRef": { "name": "f", "key": "no" } } }] }],
        });
        let mut names = BTreeSet::new();
        named(&spec, &mut names);
        assert_eq!(names.into_iter().collect::<String>(), "abcdef");
    }
}
