//! Registries that want to know who asks.

use registry::{Credentials, PullError};

use crate::fake_registry::{FakeRegistry, Node, Reply, Request, chain, layer};

fn user(name: &str, password: &str) -> Credentials {
    Credentials { username: name.into(), password: password.into(), ..Credentials::default() }
}

/// A registry that wants tokens of a token server, which wants `allowed`.
async fn guarded(
    allowed: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> (FakeRegistry, FakeRegistry) {
    let (registry, tokens) = (FakeRegistry::start().await, FakeRegistry::start().await);
    registry.put_image("1", &[layer("a", b"1")]);
    let realm = format!("http://{}/token", tokens.address);
    registry.rule(move |request| {
        if request.header("authorization") == "Bearer good" {
            return None;
        }
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"r.io\",scope=\"repository:a/b:pull,push\"");
        Some(Reply::new(401, "{}").with("www-authenticate", &challenge))
    });
    tokens.rule(move |request| {
        Some(match allowed(request) {
            true => Reply::new(200, r#"{"token":"good","expires_in":300}"#),
            false => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
        })
    });
    (registry, tokens)
}

#[tokio::test]
async fn a_token_is_fetched_once_for_pulling_alone() {
    let (registry, tokens) = guarded(|request| request.header("authorization").is_empty()).await;
    let node = Node::new();
    node.pull(&registry.reference("1")).await.unwrap();
    let seen = tokens.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].target, "/token?scope=repository%3Aa%2Fb%3Apull&service=r.io");
}

#[tokio::test]
async fn the_token_server_gets_the_password_and_the_registry_does_not() {
    let (registry, _tokens) =
        guarded(|request| request.header("authorization") == "Basic dTpw").await;
    let node = Node::new();
    let error =
        node.pull_as(&registry.reference("1"), Some(&user("u", "wrong"))).await.unwrap_err();
    assert!(matches!(error, PullError::Denied(_)), "{error:?}");
    assert!(chain(&error).starts_with("pull access denied, repository does not exist"), "{error}");
    assert!(node.leftovers().is_empty());
    node.pull_as(&registry.reference("1"), Some(&user("u", "p"))).await.unwrap();
    assert!(registry.seen().iter().all(|r| !r.header("authorization").starts_with("Basic")));
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let (registry, tokens) = guarded(|request| {
        request.method == "POST" && request.body.contains("refresh_token=secret%2F1")
    })
    .await;
    let credentials = Credentials { identity_token: "secret/1".into(), ..Credentials::default() };
    Node::new().pull_as(&registry.reference("1"), Some(&credentials)).await.unwrap();
    assert!(tokens.seen()[0].body.starts_with("grant_type=refresh_token&"));
}

#[tokio::test]
async fn an_image_that_is_here_is_refused_to_whom_the_registry_refuses_it() {
    let (registry, _tokens) =
        guarded(|request| request.header("authorization") == "Basic dTpw").await;
    let node = Node::new();
    node.pull_as(&registry.reference("1"), Some(&user("u", "p"))).await.unwrap();
    let error = node.pull(&registry.reference("1")).await.unwrap_err();
    assert!(matches!(error, PullError::Denied(_)), "{error:?}");
}

#[tokio::test]
async fn a_password_is_never_sent_for_a_challenge_that_is_not_understood() {
    let registry = FakeRegistry::start().await;
    registry.rule(|_| Some(Reply::new(401, "").with("www-authenticate", "Negotiate")));
    let node = Node::new();
    let error = node.pull_as(&registry.reference("1"), Some(&user("u", "p"))).await.unwrap_err();
    assert!(matches!(error, PullError::Challenge(_)), "{error:?}");
    assert_eq!(registry.seen().len(), 1);
}
