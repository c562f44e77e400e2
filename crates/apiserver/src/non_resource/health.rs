//! Health: `/healthz`, `/livez` and `/readyz`, each with its checks.
//!
//! Upstream: `apiserver/pkg/server/healthz/healthz.go`. Health is answered whatever the method.

use std::sync::atomic::Ordering;

use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderValue, Response, StatusCode};
use meta::Status;

use super::no_such_path;
use crate::context::RequestContext;
use crate::render::respond;
use connection::Body;

/// Where health is answered.
pub(super) const ROOTS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// A question about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Ping,
    Log,
    Store,
    Caches,
    Bootstrap,
    Running,
}

impl Check {
    /// The checks of a root, in the order in which they are printed.
    fn of(root: &str) -> &'static [Self] {
        const LIVE: [Check; 5] =
            [Check::Ping, Check::Log, Check::Store, Check::Caches, Check::Bootstrap];
        const READY: [Check; 6] = [
            Check::Ping,
            Check::Log,
            Check::Store,
            Check::Caches,
            Check::Bootstrap,
            Check::Running,
        ];
        if root == "/readyz" { &READY } else { &LIVE }
    }

    fn name(self, root: &str) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Log => "log",
            Self::Store if root == "/readyz" => "etcd-readiness",
            Self::Store => "etcd",
            Self::Caches => "informer-sync",
            Self::Bootstrap => "poststarthook/bootstrap",
            Self::Running => "shutdown",
        }
    }

    /// Asks, and counts the answer.
    async fn passes(self, ctx: &RequestContext, root: &str) -> bool {
        let passed = self.ask(ctx, root).await;
        ctx.server.metrics.checked(root, self.name(root), passed);
        passed
    }

    async fn ask(self, ctx: &RequestContext, root: &str) -> bool {
        let server = &ctx.server;
        // What only takes its time to start is alive.
        let is_live = root != "/readyz";
        match self {
            Self::Ping | Self::Log => true,
            Self::Store => server.store.revision().await.is_ok(),
            Self::Caches => is_live || server.pump.applied() > 0,
            Self::Bootstrap => is_live || server.is_ready.load(Ordering::Relaxed),
            Self::Running => !server.shutdown.is_begun(),
        }
    }
}

/// The names of the checks of a root.
pub(super) fn checks(root: &'static str) -> impl Iterator<Item = &'static str> {
    Check::of(root).iter().map(move |check| check.name(root))
}

/// Answers the paths of health; `None` when the path is none of them.
pub(super) async fn serve(
    ctx: &RequestContext,
    path: &str,
) -> Result<Option<Response<Body>>, Status> {
    let within = |root: &&&str| {
        path.strip_prefix(**root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let Some(root) = ROOTS.iter().find(within) else { return Ok(None) };
    let answer = match path[root.len()..].trim_start_matches('/') {
        "" => all(ctx, root).await,
        name => one(ctx, root, name).await,
    };
    Ok(Some(answer))
}

async fn one(ctx: &RequestContext, root: &str, name: &str) -> Response<Body> {
    let Some(check) = Check::of(root).iter().find(|check| check.name(root) == name) else {
        return no_such_path();
    };
    if check.passes(ctx, root).await {
        return plain(StatusCode::OK, "ok");
    }
    plain(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: check failed\n")
}

async fn all(ctx: &RequestContext, root: &str) -> Response<Body> {
    let mut excluded: Vec<&str> = ctx.query.all("exclude").collect();
    let mut text = String::new();
    let mut failed = false;
    for check in Check::of(root) {
        let name = check.name(root);
        if excluded.contains(&name) {
            excluded.retain(|found| *found != name);
            text.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if check.passes(ctx, root).await {
            text.push_str(&format!("[+]{name} ok\n"));
        } else {
            failed = true;
            text.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        text.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {names}\n"
        ));
    }
    let name = root.trim_start_matches('/');
    if failed {
        text.push_str(&format!("{name} check failed\n"));
        return plain(StatusCode::INTERNAL_SERVER_ERROR, &text);
    }
    if ctx.query.get("verbose").is_none() {
        return plain(StatusCode::OK, "ok");
    }
    text.push_str(&format!("{name} check passed\n"));
    plain(StatusCode::OK, &text)
}

fn plain(code: StatusCode, text: &str) -> Response<Body> {
    let body = Body::from(text.as_bytes().to_vec());
    let mut response = respond(code, "text/plain; charset=utf-8", body);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
