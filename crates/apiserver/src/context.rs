//! A request on its way through the server.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use meta::{Cause, Status};

use crate::custom::Conversions;
use crate::errors;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::strategy::WriteContext;

/// Everything about a request but its body.
pub(crate) struct RequestContext {
    pub(crate) server: Arc<Server>,
    pub(crate) user: authn::UserInfo,
    pub(crate) method: http::Method,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// Where it came from.
    pub(crate) address: IpAddr,
    /// The lane of its connection, if it came over one.
    pub(crate) lane: Option<connection::listener::Lane>,
    /// What flow control took it for.
    pub(crate) flow: Option<flowcontrol::Flow>,
    /// The id by which it is recorded, here and where it is forwarded to.
    pub(crate) audit_id: HeaderValue,
    /// What is recorded of it, when anything is.
    pub(crate) audit: Option<Arc<audit::AuditContext>>,
    /// What was converted to tell who owns what.
    pub(crate) conversions: Conversions,
    warnings: Mutex<Vec<String>>,
}

/// Components of this process ask from where it is.
pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Warnings of one answer; more would not fit in its headers.
const WARNINGS: usize = 64;

impl RequestContext {
    pub(crate) fn new(
        server: Arc<Server>,
        user: authn::UserInfo,
        method: http::Method,
        info: RequestInfo,
        query: Query,
        headers: HeaderMap,
    ) -> Self {
        let (conversions, warnings) = (Conversions::default(), Mutex::default());
        let (lane, flow, audit) = (None, None, None);
        let address = HERE;
        let audit_id = HeaderValue::from_static("");
        Self {
            server,
            user,
            method,
            info,
            query,
            headers,
            address,
            lane,
            flow,
            audit_id,
            audit,
            conversions,
            warnings,
        }
    }

    /// Tells the client something beside the answer.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.into();
        if warnings.len() < WARNINGS && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The warnings so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says something in the audit event, if there is one.
    pub(crate) fn annotate<T: Into<String>>(&self, key: &str, value: impl FnOnce() -> T) {
        if let Some(audit) = &self.audit {
            audit.annotate(key, value());
        }
    }

    /// Says that a token was shown that lies in a Secret.
    pub(crate) fn note_legacy(&self, used: &authn::LegacyUse) {
        if let Some(warning) = used.warning() {
            self.warn(warning);
        }
        let (key, value) = used.audit_annotation();
        self.annotate(key, || value);
    }

    /// The user as authorization sees it.
    pub(crate) fn subject(&self) -> authz::Subject<'_> {
        authz::Subject { name: &self.user.name, groups: &self.user.groups }
    }

    /// Whether the `dryRun` parameter asks for it; DELETE may also ask in its body.
    pub(crate) fn is_dry_run(&self) -> Result<bool, Status> {
        check_dry_run(self.query.all("dryRun"), options_kind(&self.info.verb))
    }

    /// What a strategy may know.
    pub(crate) fn write(&self) -> WriteContext<'_> {
        WriteContext { server: &self.server, user: &self.user }
    }
}

/// Whether a list of dry-run directives asks for it.
pub(crate) fn check_dry_run<'a>(
    directives: impl Iterator<Item = &'a str>,
    kind: &str,
) -> Result<bool, Status> {
    dry_run(directives).map_err(|cause| errors::invalid("meta.k8s.io", kind, "", vec![cause]))
}

/// The same, with the finding alone.
pub(crate) fn dry_run<'a>(directives: impl Iterator<Item = &'a str>) -> Result<bool, Cause> {
    let all: Vec<&str> = directives.filter(|directive| !directive.is_empty()).collect();
    let unknown: Vec<&str> = all.iter().copied().filter(|directive| *directive != "All").collect();
    if unknown.is_empty() {
        return Ok(!all.is_empty());
    }
    let list: Vec<String> = all.iter().map(|directive| format!("{directive:?}")).collect();
    Err(Cause {
        reason: "FieldValueNotSupported".to_owned(),
        message: format!("Unsupported value: [{}]: supported values: \"All\"", list.join(",")),
        field: "dryRun".to_owned(),
    })
}

pub(crate) fn options_kind(verb: &str) -> &'static str {
    match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => "DeleteOptions",
    }
}

/// A request with its body read.
pub(crate) struct WriteRequest<'a> {
    pub(crate) ctx: &'a RequestContext,
    pub(crate) body: Bytes,
}
