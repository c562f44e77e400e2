//! GET of a collection, in pages and at exact revisions.

use std::sync::Arc;

use base64::DecodeError;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{Engine, GeneralPurpose};
use http::Response;
use meta::{FieldSelector, LabelSelector, Object, Reason, Status};
use serde::{Deserialize, Serialize};

use super::list_options::check_list;
use super::{list_form, table_options};
use crate::context::RequestContext;
use crate::custom::{convert, selection as custom_selection};
use crate::errors::bad_request;
use crate::render::{self, ListMeta};
use crate::resources::{Resource, Storage};
use crate::write::storage;
use cache::{Selection, Snapshot};
use connection::Body;

/// The parsed parameters of a list.
pub(crate) struct ListRequest {
    pub(crate) selection: Selection,
    limit: usize,
    continues: Option<Continue>,
    version: Option<u64>,
    version_match: VersionMatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VersionMatch {
    Unset,
    Exact,
    NotOlderThan,
}

/// What a continue token says; the form is upstream's.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Continue {
    v: String,
    /// The revision of the first page, or -1 to go on at the newest.
    rv: i64,
    /// The key after which to go on, with a zero byte at its end.
    start: String,
}

/// The objects of a list.
pub(crate) struct Found {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) meta: ListMeta,
}

pub(crate) async fn list(
    ctx: &RequestContext,
    resource: &Resource,
) -> Result<Response<Body>, Status> {
    let form = list_form(ctx, resource)?;
    let request = ListRequest::parse(ctx, resource)?;
    let found = select(ctx, resource, &request).await?;
    Ok(render::list(resource, &found.objects, &found.meta, form, table_options(ctx)))
}

/// Finds the objects of a list.
pub(crate) async fn select(
    ctx: &RequestContext,
    resource: &Resource,
    request: &ListRequest,
) -> Result<Found, Status> {
    let storage = storage(resource)?;
    let afterwards = custom_selection::afterwards(resource, &request.selection.fields);
    let snapshot = snapshot(ctx, storage, request).await?;
    let start = request.continues.as_ref().map(|token| token.start.as_str());
    let found_by = match &afterwards {
        Some(_) => &custom_selection::before(request.selection.clone()),
        None => &request.selection,
    };
    let mut page = page(storage, &snapshot, (found_by, request.limit), start);
    page.objects = convert::presented(&ctx.server, resource, page.objects).await?;
    if let Some(fields) = &afterwards {
        page.objects.retain(|object| custom_selection::matches(fields, object));
    }
    let mut meta =
        ListMeta { resource_version: snapshot.revision.to_string(), ..ListMeta::default() };
    if let Some(last) = &page.next {
        storage.cache.keep(&snapshot, ctx.server.clock.monotonic());
        let revision = i64::try_from(snapshot.revision).unwrap_or(i64::MAX);
        meta.continue_token = Continue::after(last, revision).encode();
        if request.selection.is_plain() {
            meta.remaining = Some(page.remaining);
        }
    }
    Ok(Found { objects: page.objects, meta })
}

async fn snapshot(
    ctx: &RequestContext,
    storage: &Storage,
    request: &ListRequest,
) -> Result<Snapshot, Status> {
    let pump = &ctx.server.pump;
    if let Some(token) = &request.continues {
        let Ok(revision) = u64::try_from(token.rv) else {
            let applied = pump.fresh().await?;
            return Ok(storage.cache.snapshot(applied));
        };
        pump.reach(revision).await?;
        return storage.cache.snapshot_at(revision).ok_or_else(|| expired(token));
    }
    // What kubelets list. Pages are left to the walk over everything, which can be continued.
    let node = request.selection.fields.exact("spec.nodeName");
    let node = node.filter(|node| !node.is_empty() && request.limit == 0);
    let newest = |applied| match node {
        Some(node) => storage.cache.snapshot_of_node(applied, node),
        None => storage.cache.snapshot(applied),
    };
    match (request.version, request.version_match) {
        (None, _) => Ok(newest(pump.fresh().await?)),
        (Some(version), VersionMatch::Exact) => {
            pump.reach(version).await?;
            let too_old = || {
                Status::failure(
                    Reason::Expired,
                    "The resourceVersion for the provided list is too old.",
                )
            };
            storage.cache.snapshot_at(version).ok_or_else(too_old)
        }
        (Some(version), _) => {
            pump.reach(version).await?;
            Ok(newest(pump.applied()))
        }
    }
}

struct Page {
    objects: Vec<Arc<Object>>,
    /// The key of the last object, when there are more.
    next: Option<Arc<str>>,
    remaining: u64,
}

fn page(
    storage: &Storage,
    snapshot: &Snapshot,
    (selection, limit): (&Selection, usize),
    start: Option<&str>,
) -> Page {
    let namespace = &selection.namespace;
    let is_scoped = storage.is_namespaced && !namespace.is_empty();
    let prefix = if is_scoped { format!("{namespace}/") } else { String::new() };
    let mut objects = Vec::new();
    // The common look-up by name needs no walk.
    if let Some(name) = selection.fields.exact("metadata.name")
        && (is_scoped || !storage.is_namespaced)
        && start.is_none()
    {
        let key = format!("{prefix}{name}");
        let found = snapshot.map.get(key.as_str());
        objects.extend(found.filter(|object| selection.matches(object.header())).cloned());
        return Page { objects, next: None, remaining: 0 };
    }
    let from: Arc<str> = match start {
        Some(start) => format!("{prefix}{start}").into(),
        None => prefix.as_str().into(),
    };
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut last: Option<Arc<str>> = None;
    let mut walk = snapshot.map.range(from..).take_while(|(key, _)| key.starts_with(&prefix));
    let is_plain = selection.is_plain();
    for (key, object) in walk.by_ref() {
        if !is_plain && !selection.matches(object.header()) {
            continue;
        }
        if objects.len() == limit {
            let next = last.map(|last| last[prefix.len()..].into());
            let rest = if is_plain { walk.count() as u64 + 1 } else { 0 };
            return Page { objects, next, remaining: rest };
        }
        objects.push(object.clone());
        last = Some(key.clone());
    }
    Page { objects, next: None, remaining: 0 }
}

impl ListRequest {
    /// Reads the parameters.
    pub(crate) fn parse(ctx: &RequestContext, resource: &Resource) -> Result<Self, Status> {
        let query = &ctx.query;
        let limit = match query.non_empty("limit") {
            None => 0,
            Some(text) => parse_limit(text)?,
        };
        parse_timeout(ctx)?;
        check_list(query)?;
        let version = query.non_empty("resourceVersion").map(parse_version).transpose()?;
        let version_match = match query.get("resourceVersionMatch").unwrap_or_default() {
            "Exact" => VersionMatch::Exact,
            "NotOlderThan" => VersionMatch::NotOlderThan,
            _ => VersionMatch::Unset,
        };
        let continues = query.non_empty("continue").map(Continue::decode).transpose()?;
        if continues.is_some() && version.is_some_and(|version| version != 0) {
            return Err(bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        // From a cache, upstream answers in one piece.
        let limit = if version == Some(0) { 0 } else { limit };
        let selection = selection(ctx, resource)?;
        Ok(Self { selection, limit, continues, version, version_match })
    }
}

/// Reads the selectors of a list or a watch.
pub(crate) fn selection(ctx: &RequestContext, resource: &Resource) -> Result<Selection, Status> {
    let labels = ctx.query.get("labelSelector").unwrap_or_default();
    let labels = LabelSelector::parse(labels).map_err(|error| bad_request(error.to_string()))?;
    let fields = ctx.query.get("fieldSelector").unwrap_or_default();
    let fields = FieldSelector::parse(fields).map_err(|error| bad_request(error.to_string()))?;
    let known = schema::registry().field_selectors(&resource.gvk);
    let to_stored = |key: &str| -> Result<String, String> {
        if let Some(version) = &resource.custom {
            return custom_selection::resolve(version, key);
        }
        let key = known.resolve(key)?;
        let renamed = resource
            .conversion
            .and_then(|c| c.fields.iter().find(|(served, _)| *served == key))
            .map_or(key, |(_, stored)| stored);
        Ok(renamed.to_owned())
    };
    let fields = fields.convert(to_stored).map_err(bad_request)?;
    Ok(Selection { namespace: ctx.info.namespace.clone(), labels, fields })
}

/// Reads a resource version.
pub(crate) fn parse_version(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let cause = meta::Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!(
                "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ),
            field: "resourceVersion".to_owned(),
        };
        bad_request(format!("invalid resource version: {}: {}", cause.field, cause.message))
    })
}

/// Reads `timeoutSeconds`; what is negative does not limit.
pub(crate) fn parse_timeout(ctx: &RequestContext) -> Result<Option<u64>, Status> {
    let Some(text) = ctx.query.non_empty("timeoutSeconds") else { return Ok(None) };
    let number: i64 = text
        .parse()
        .map_err(|_| bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
    Ok(u64::try_from(number).ok())
}

fn parse_limit(text: &str) -> Result<usize, Status> {
    let number: i64 = text
        .parse()
        .map_err(|_| bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
    // Negative means no limit, as upstream has it.
    Ok(usize::try_from(number).unwrap_or(0))
}

impl Continue {
    fn after(key: &str, revision: i64) -> Self {
        Self { v: "meta.k8s.io/v1".to_owned(), rv: revision, start: format!("{key}\0") }
    }

    fn encode(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let refuse = |why: String| {
            bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        // Go does not mind bits that are left over.
        let config = NO_PAD.with_decode_allow_trailing_bits(true);
        let text = text.trim_end_matches('=');
        let decoded = GeneralPurpose::new(&URL_SAFE, config).decode(text);
        let bytes = decoded.map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _)
                | DecodeError::InvalidLastSymbol { offset: at, .. } => at,
                DecodeError::InvalidLength(length) => length.saturating_sub(1),
                DecodeError::InvalidPadding => text.len(),
            };
            refuse(format!("illegal base64 data at input byte {at}"))
        })?;
        schema::check_json_syntax(&bytes).map_err(refuse)?;
        let token: Self =
            serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(refuse(format!(
                "server does not recognize this encoded version {:?}",
                token.v
            )));
        }
        Ok(token)
    }
}

/// 410 with a token that goes on at the newest revision, for those who can live with that.
fn expired(token: &Continue) -> Status {
    let newest = Continue { rv: -1, ..token.clone() };
    let mut status = Status::failure(
        Reason::Expired,
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter, or use the continue token in this \
         response to retrieve the remainder of the results. Continuing with the provided token \
         results in an inconsistent list - objects that were created, modified, or deleted between \
         the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata.insert("continue".to_owned(), newest.encode().into());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back() {
        let token = Continue::after("ns/name", 7);
        let decoded = Continue::decode(&token.encode()).unwrap();
        assert_eq!((decoded.rv, decoded.start.as_str()), (7, "ns/name\0"));
        assert!(Continue::decode("!!").is_err());
        assert!(Continue::decode("e30").is_err());
    }
}
