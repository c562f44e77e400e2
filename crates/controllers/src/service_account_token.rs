//! Puts tokens of service accounts into the Secrets that are made for them, and removes these with
//! their account, as upstream's `TokensController`.

mod view;

use std::sync::Arc;

use client::{Change, Client, ClientError, DeleteOptions, Outcome};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use meta::ObjectKey;

pub(crate) use self::view::{AccountView, INVALID_SINCE, SecretView, TYPE};
use crate::context::Context;
use crate::reconcile::reconcile;
use crate::{SignToken, TokenSubject};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const TOKEN: &str = "token";
const NAMESPACE: &str = "namespace";
const CA: &str = "ca.crt";

/// Runs until shutdown; without a key there is nothing to sign with.
pub(crate) async fn run(ctx: Context) {
    let Some(sign) = ctx.sign_token.clone() else {
        return ctx.shutdown.begun().await;
    };
    let queue = ctx.queue("serviceaccount_tokens_secret");
    let informers = &ctx.informers;
    tokio::join!(informers.service_accounts.synced(), informers.token_secrets.synced());
    informers.token_secrets.on_change({
        let queue = queue.clone();
        move |key, change| {
            let (Change::Added(found)
            | Change::Updated { new: found, .. }
            | Change::Deleted(found)) = change;
            if found.is_some() {
                queue.add(key.clone());
            }
        }
    });
    informers.service_accounts.on_change({
        let (queue, secrets) = (queue.clone(), informers.token_secrets.clone());
        move |key, change| {
            if !matches!(change, Change::Deleted(_)) {
                return;
            }
            for secret in secrets.list_namespace(&key.namespace) {
                if let Some(secret) = secret.as_ref().as_ref().filter(|it| it.account == key.name) {
                    queue.add(ObjectKey::new(&key.namespace, &secret.name));
                }
            }
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, sign) = (ctx.clone(), Arc::clone(&sign));
        async move { sync(&ctx, &sign, &key).await }
    })
    .await;
}

async fn sync(ctx: &Context, sign: &SignToken, key: &ObjectKey) -> Result<Outcome, ClientError> {
    let found = ctx.informers.token_secrets.get(key);
    let Some(secret) = found.as_deref().and_then(Option::as_ref) else {
        return forget(ctx, key).await;
    };
    let account = ObjectKey::new(&key.namespace, &secret.account);
    let Some(uid) = account_uid(ctx, &account, &secret.account_uid).await? else {
        return remove(&ctx.manager, key, &secret.uid).await;
    };
    if !secret.lacks(ctx.config.root_ca.as_bytes()) {
        return Ok(Outcome::Done);
    }
    // Whether it lacks something is for the Secret as it is now to say.
    let secrets = ctx.manager.api::<Secret>(&key.namespace);
    let Some(mut live) = secrets.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
    let account = TokenSubject {
        namespace: key.namespace.clone(),
        secret: key.name.clone(),
        account: account.name,
        account_uid: uid,
    };
    match fill(&mut live, account, ctx.config.root_ca.as_bytes(), sign) {
        Ok(false) => Ok(Outcome::Done),
        Ok(true) => match secrets.update(&live).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        },
        Err(error) => {
            tracing::error!(secret = %key, error, "a service account's token cannot be signed");
            Ok(Outcome::Requeue)
        }
    }
}

/// The uid of the account that a Secret is for; asked for where the cache has another one or none.
async fn account_uid(
    ctx: &Context,
    key: &ObjectKey,
    wanted: &str,
) -> Result<Option<String>, ClientError> {
    let is_wanted = |uid: &String| wanted.is_empty() || wanted == uid;
    let known = ctx.informers.service_accounts.get(key).map(|account| account.uid.clone());
    if let Some(known) = known.filter(is_wanted) {
        return Ok(Some(known));
    }
    let live = ctx.manager.api::<ServiceAccount>(&key.namespace).get_opt(&key.name).await?;
    Ok(live.and_then(|account| account.metadata.uid).filter(is_wanted))
}

async fn remove(client: &Client, key: &ObjectKey, uid: &str) -> Result<Outcome, ClientError> {
    let options = DeleteOptions { uid: Some(uid.to_owned()), ..DeleteOptions::default() };
    match client.api::<Secret>(&key.namespace).delete(&key.name, &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

/// Takes a Secret that is gone out of the accounts that name it.
async fn forget(ctx: &Context, key: &ObjectKey) -> Result<Outcome, ClientError> {
    let accounts = ctx.manager.api::<ServiceAccount>(&key.namespace);
    for account in ctx.informers.service_accounts.list_namespace(&key.namespace) {
        if !account.secrets.contains(&key.name) {
            continue;
        }
        let Some(mut live) = accounts.get_opt(&account.name).await? else { continue };
        let Some(names) = live.secrets.as_mut() else { continue };
        names.retain(|reference| reference.name.as_ref() != Some(&key.name));
        match accounts.update(&live).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(Outcome::Done)
}

/// Gives a Secret what it lacks; whether it lacked anything.
fn fill(
    secret: &mut Secret,
    subject: TokenSubject,
    root_ca: &[u8],
    sign: &SignToken,
) -> Result<bool, String> {
    let view = SecretView::of(secret);
    if !view.is_some_and(|view| view.lacks(root_ca)) {
        return Ok(false);
    }
    let data = secret.data.get_or_insert_default();
    if !root_ca.is_empty() {
        data.insert(CA.to_owned(), ByteString(root_ca.to_vec()));
    }
    let is_missing = |value: Option<&ByteString>| value.is_none_or(|value| value.0.is_empty());
    if is_missing(data.get(NAMESPACE)) {
        data.insert(NAMESPACE.to_owned(), ByteString(subject.namespace.clone().into_bytes()));
    }
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_NAME.to_owned(), subject.account.clone());
    annotations.insert(ACCOUNT_UID.to_owned(), subject.account_uid.clone());
    if is_missing(data.get(TOKEN)) {
        data.insert(TOKEN.to_owned(), ByteString(sign(&subject)?.into_bytes()));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(data: Value) -> Secret {
        let annotations = json!({ ACCOUNT_NAME: "builder" });
        let metadata = json!({ "name": "s", "namespace": "n", "annotations": annotations });
        serde_json::from_value(json!({ "type": TYPE, "metadata": metadata, "data": data })).unwrap()
    }

    fn filled(mut secret: Secret, root_ca: &[u8]) -> Option<Secret> {
        let sign: SignToken = Arc::new(|subject| Ok(format!("of {}", subject.account_uid)));
        let subject = TokenSubject {
            namespace: "n".to_owned(),
            secret: "s".to_owned(),
            account: "builder".to_owned(),
            account_uid: "u1".to_owned(),
        };
        fill(&mut secret, subject, root_ca, &sign).unwrap().then_some(secret)
    }

    fn text(secret: &Secret, key: &str) -> String {
        String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
    }

    #[test]
    fn a_secret_gets_what_it_lacks_once() {
        let first = filled(secret(json!({})), b"PEM").unwrap();
        assert_eq!(text(&first, TOKEN), "of u1");
        assert_eq!(text(&first, NAMESPACE), "n");
        assert_eq!(text(&first, CA), "PEM");
        assert_eq!(first.metadata.annotations.as_ref().unwrap()[ACCOUNT_UID], "u1");
        assert_eq!(filled(first.clone(), b"PEM"), None);
        let renewed = filled(first, b"NEW").unwrap();
        assert_eq!(text(&renewed, CA), "NEW");
    }

    #[test]
    fn a_token_that_is_there_stays() {
        let own = filled(secret(json!({ TOKEN: "b3du" })), b"").unwrap();
        assert_eq!(text(&own, TOKEN), "own");
        assert!(!own.data.unwrap().contains_key(CA), "there is no authority");
    }

    #[test]
    fn another_secret_is_left_alone() {
        let mut other = secret(json!({}));
        other.type_ = Some("Opaque".to_owned());
        assert_eq!(filled(other, b"PEM"), None);
    }
}
