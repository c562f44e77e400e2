//! Who owns which fields: the requests' side of crate `apply`.

use std::sync::{Arc, LazyLock};

use ::custom::Compiled;
use apply::{ApplyError, Conflict, Filter, Manager, Unconverted, Write};
use meta::{Cause, GroupVersion, GroupVersionKind, Reason, Status, StatusDetails};
use schema::{FieldValidation, Type};
use serde_json::Value;

use crate::context::RequestContext;
use crate::custom::conversions::settled;
use crate::custom::{Conversions, CustomKind, CustomVersion, convert};
use crate::decode::stamp;
use crate::errors;
use crate::resources::Resource;
use crate::server::Server;

/// What is written: objects of a resource, or another kind that stands for them.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    ty: &'a Type,
    gvk: &'a GroupVersionKind,
    /// Absent for another kind.
    resource: Option<&'a Resource>,
}

impl<'a> Target<'a> {
    pub(crate) fn of(resource: &'a Resource) -> Self {
        Self { ty: resource.fields(), gvk: &resource.gvk, resource: Some(resource) }
    }

    pub(crate) fn kind(ty: &'a Type, gvk: &'a GroupVersionKind) -> Self {
        Self { ty, gvk, resource: None }
    }
}

/// Sets the managed fields of a working form after what a request changes of the live object.
pub(crate) fn record(
    ctx: &RequestContext,
    target: Target<'_>,
    manager: &str,
    live: Option<&Value>,
    new: &mut Value,
) {
    let subresource = &ctx.info.subresource;
    let manager = apply::updater(manager, subresource, &api_version(target.gvk));
    let conversions = Some(&ctx.conversions);
    // Who manages what becomes unknown then, which is all that upstream does of it.
    if let Err(error) =
        with_write(&ctx.server, conversions, target, &manager, |it| it.record_update(live, new))
    {
        tracing::warn!(%error, name = ctx.info.name, "managed fields were not updated");
    }
}

/// The same for an update of a live object of a kind that a webhook may have to convert.
pub(crate) async fn record_settled(
    ctx: &RequestContext,
    resource: &Resource,
    manager: &str,
    live: &Value,
    new: &mut Value,
) -> Result<(), Status> {
    let target = Target::of(resource);
    if resource.custom.as_ref().is_none_or(|version| version.kind.hook.is_none()) {
        record(ctx, target, manager, Some(live), new);
        return Ok(());
    }
    let recorded = settled(ctx, resource, || {
        let mut new = new.clone();
        record(ctx, target, manager, Some(live), &mut new);
        Ok(new)
    });
    *new = recorded.await?;
    Ok(())
}

/// The server's own name as a manager, as upstream's loopback client has it.
const OWN: &str = "kube-apiserver";

/// Sets the managed fields of a working form after what the server itself changes of the status.
pub(crate) fn record_own_status(
    server: &Server,
    resource: &Resource,
    live: &Value,
    new: &mut Value,
) {
    let manager = apply::updater(OWN, "status", &api_version(&resource.gvk));
    let target = Target::of(resource);
    let recorded =
        with_write(server, None, target, &manager, |write| write.record_update(Some(live), new));
    if let Err(error) = recorded {
        tracing::warn!(%error, kind = %resource.gvk, "managed fields were not updated");
    }
}

/// The working form after a configuration is applied to the live object, with its managed fields.
pub(crate) fn applied(
    ctx: &RequestContext,
    target: Target<'_>,
    manager: &str,
    (live, config): (Option<&Value>, &Value),
    is_forced: bool,
) -> Result<Value, Status> {
    let gvk = target.gvk;
    check_config(gvk, config)?;
    let manager = apply::applier(manager, &ctx.info.subresource, &api_version(gvk));
    let result = with_write(&ctx.server, Some(&ctx.conversions), target, &manager, |write| {
        write.apply_config(live, config, is_forced)
    });
    let (object, managed) = result.map_err(|error| refused(error, gvk, config))?;
    let mut object = match (object, live) {
        (Some(object), _) => match target.resource.and_then(|it| it.custom.as_ref()) {
            Some(version) => fitted(version, object)?,
            None => decoded(target.ty, gvk, &object, config)?,
        },
        (None, live) => live.cloned().unwrap_or_else(|| config.clone()),
    };
    stamp(&mut object, gvk);
    apply::put_managed_fields(&mut object, managed);
    Ok(object)
}

/// What was applied to an object of a custom resource, brought into form.
fn fitted(version: &CustomVersion, mut object: Value) -> Result<Value, Status> {
    // What it does not know was refused before.
    version.compiled().admit(&mut object).map_err(errors::unexpected)?;
    Ok(object)
}

/// The working form of what was applied.
fn decoded(
    ty: &Type,
    gvk: &GroupVersionKind,
    object: &Value,
    config: &Value,
) -> Result<Value, Status> {
    let decoded = schema::decode_value(ty, object, FieldValidation::Ignore);
    decoded.map(|decoded| decoded.value).map_err(|error| {
        errors::unexpected(format!(
            "failed to convert new typed object ({}) to object: {error}",
            describe(gvk, config)
        ))
    })
}

/// The kind a configuration must be of, and what it must not say.
fn check_config(wanted: &GroupVersionKind, config: &Value) -> Result<(), Status> {
    let text = |field: &str| config[field].as_str().unwrap_or_default();
    let none = GroupVersion { group: String::new(), version: String::new() };
    let version = match text("apiVersion") {
        "" => none,
        text => GroupVersion::parse(text).unwrap_or(none),
    };
    if text("kind") != wanted.kind || version != wanted.group_version() {
        let (group, version) = (version.group, version.version);
        let kind = text("kind");
        return Err(errors::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={kind}"
        )));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|list| !list.is_null()) {
        return Err(errors::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// What the failure of an apply is to a client.
fn refused(error: ApplyError, gvk: &GroupVersionKind, config: &Value) -> Status {
    match error {
        ApplyError::Untyped(why) => errors::unexpected(format!(
            "failed to create typed patch object ({}): {why}",
            describe(gvk, config)
        )),
        ApplyError::Unconvertible(why) => errors::unexpected(why),
        ApplyError::Conflicts(conflicts) => conflict(&conflicts),
    }
}

fn describe(gvk: &GroupVersionKind, config: &Value) -> String {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let (group, version, kind) = (&gvk.group, &gvk.version, &gvk.kind);
    format!("{namespace}/{name}; {group}/{version}, Kind={kind}")
}

fn conflict(conflicts: &[Conflict]) -> Status {
    let mut conflicts: Vec<&Conflict> = conflicts.iter().collect();
    // Managers in the order of their names, the fields of each in the order they were found.
    conflicts.sort_by_cached_key(|conflict| print(&conflict.manager));
    let message = match conflicts.as_slice() {
        [one] => format!("conflict with {}: {}", print(&one.manager), one.path),
        many => {
            let mut lines = Vec::new();
            for (at, conflict) in many.iter().enumerate() {
                if at == 0 || !many[at - 1].manager.is_same(&conflict.manager) {
                    lines.push(format!("conflicts with {}:", print(&conflict.manager)));
                }
                lines.push(format!("- {}", conflict.path));
            }
            lines.join("\n")
        }
    };
    let noun = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {noun}: {message}", conflicts.len());
    let cause = |conflict: &&Conflict| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", print(&conflict.manager)),
        field: conflict.path.clone(),
    };
    let causes = conflicts.iter().map(cause).collect();
    let details = StatusDetails { causes, ..StatusDetails::default() };
    Status::failure(Reason::Conflict, message).with_details(details)
}

fn print(manager: &Manager) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", manager.subresource));
    }
    if !manager.is_applier() {
        text.push_str(&format!(" using {}", manager.api_version));
    }
    text
}

fn api_version(gvk: &GroupVersionKind) -> String {
    gvk.group_version().to_string()
}

fn with_write<T>(
    server: &Server,
    conversions: Option<&Conversions>,
    target: Target<'_>,
    manager: &Manager,
    run: impl FnOnce(&Write<'_>) -> T,
) -> T {
    let now = meta::time::rfc3339(server.clock.now());
    let storage = target.resource.and_then(|resource| resource.storage.as_deref());
    let others = storage.map(|storage| server.resources.versions(storage));
    let versions = Served { conversions, others: others.unwrap_or_default(), target };
    let filter = target.resource.map_or(&ALL, |it| filter(it, &manager.subresource));
    run(&Write {
        ty: target.ty,
        manager,
        now: &now,
        filter,
        versions: &versions,
        is_changeable: target.resource.is_some_and(|it| it.custom.is_some()),
    })
}

/// The versions in which something is served.
struct Served<'a> {
    /// Those of the request, when a webhook may be asked.
    conversions: Option<&'a Conversions>,
    others: Vec<Arc<Resource>>,
    target: Target<'a>,
}

impl Served<'_> {
    fn find(&self, wanted: &str) -> Option<&Resource> {
        let resource = self.target.resource?;
        if api_version(&resource.gvk) == wanted {
            return Some(resource);
        }
        self.others.iter().find(|served| api_version(&served.gvk) == wanted).map(|served| &**served)
    }
}

impl<'a> Served<'a> {
    /// A version of a custom resource, which need not be served.
    fn custom(&self) -> Option<&'a CustomVersion> {
        self.target.resource?.custom.as_ref()
    }

    fn compiled(&self, kind: &'a CustomKind, wanted: &str) -> Option<&'a Compiled> {
        let (group, version) = wanted.split_once('/')?;
        let is_own = group == kind.definition.spec.group;
        kind.version(version).filter(|_| is_own).map(|compiled| &**compiled)
    }

    /// A custom resource in another version.
    fn converted(
        &self,
        kind: &'a CustomKind,
        object: &Value,
        to: &str,
    ) -> Result<Value, Unconverted> {
        let compiled = self.compiled(kind, to).ok_or(Unconverted::Unknown)?;
        if kind.hook.is_none() {
            let name = &compiled.version.name;
            return convert::by_name(kind, name, object.clone()).map_err(|_| Unconverted::Unknown);
        }
        // What is not there yet is asked for after this round.
        let found = self.conversions.and_then(|known| known.find(object, to));
        let found = found.ok_or(Unconverted::Unknown)?;
        let object = found.map_err(Unconverted::Failed)?;
        match apply::misfit(compiled.table(), &object) {
            Some(why) => Err(Unconverted::Failed(why)),
            None => Ok(object),
        }
    }
}

impl apply::Versions for Served<'_> {
    fn table(&self, wanted: &str) -> Option<&Type> {
        if let Some(version) = self.custom() {
            return Some(self.compiled(&version.kind, wanted)?.table());
        }
        if self.target.resource.is_none() && api_version(self.target.gvk) == wanted {
            return Some(self.target.ty);
        }
        Some(self.find(wanted)?.fields())
    }

    fn misfit(&self, object: &Value, wanted: &str) -> Option<String> {
        let kind = &self.custom()?.kind;
        if kind.hook.is_some() {
            // What does not fit is found where it is converted.
            return None;
        }
        let compiled = self.compiled(kind, wanted)?;
        let mut object = object.clone();
        custom::by_name(&mut object, wanted);
        apply::misfit(compiled.table(), &object)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Result<Value, Unconverted> {
        if let Some(version) = self.custom() {
            let hub = version.api_version();
            if version.kind.hook.is_none() || from == hub || to == hub {
                return self.converted(&version.kind, object, to);
            }
            // As upstream does it, by way of the version of the request.
            let object = self.converted(&version.kind, object, &hub)?;
            return self.converted(&version.kind, &object, to);
        }
        let (from, to) = (self.find(from), self.find(to));
        let (from, to) = (from.ok_or(Unconverted::Unknown)?, to.ok_or(Unconverted::Unknown)?);
        Ok(to.served_from(from.to_storage(object.clone())))
    }
}

static ALL: Filter = Filter::All;
static NO_STATUS: LazyLock<Filter> = LazyLock::new(|| Filter::except(&[&["status"]]));
static NO_SPEC: LazyLock<Filter> = LazyLock::new(|| Filter::except(&[&["spec"]]));
static ONLY_STATUS: LazyLock<Filter> =
    LazyLock::new(|| Filter::except(&[&["spec"], &["metadata"]]));
/// Upstream's strategy keeps all but the status, and the two parts of every object.
static ONLY_STATUS_OF_CUSTOM: LazyLock<Filter> = LazyLock::new(|| Filter::Only(vec![&["status"]]));
static OF_REQUEST: LazyLock<Filter> = LazyLock::new(|| Filter::except(&[&["spec"], &["status"]]));
static OF_SIGNING: LazyLock<Filter> =
    LazyLock::new(|| Filter::except(&[&["spec"], &["status", "conditions"]]));
static OF_APPROVAL: LazyLock<Filter> =
    LazyLock::new(|| Filter::except(&[&["spec"], &["status", "certificate"]]));
static OF_POD_STATUS: LazyLock<Filter> = LazyLock::new(|| {
    Filter::except(&[
        &["spec"],
        &["metadata", "deletionTimestamp"],
        &["metadata", "ownerReferences"],
    ])
});
static OF_DEPLOYMENT_STATUS: LazyLock<Filter> =
    LazyLock::new(|| Filter::except(&[&["spec"], &["metadata", "labels"]]));
static OF_EPHEMERAL: LazyLock<Filter> =
    LazyLock::new(|| Filter::Only(vec![&["spec", "ephemeralContainers"]]));
static OF_RESIZE: LazyLock<Filter> = LazyLock::new(|| {
    Filter::Only(vec![
        &["spec", "containers", "*", "resources"],
        &["spec", "containers", "*", "resizePolicy"],
        &["spec", "initContainers", "*", "resources"],
        &["spec", "initContainers", "*", "resizePolicy"],
        &["spec", "resources"],
    ])
});

/// What a resource or subresource lets a request own.
///
/// Upstream: `GetResetFields` and `GetResetFieldsFilter` of each registry's strategy.
fn filter(resource: &Resource, subresource: &str) -> &'static Filter {
    let name = &*resource.definition.name;
    match (name, subresource) {
        // Upstream's strategy names its versions without their group, so that nothing is left out.
        ("servicecidrs", _) => &ALL,
        ("certificatesigningrequests", "") => &OF_REQUEST,
        (_, "") if resource.definition.subresource("status").is_some() => &NO_STATUS,
        (_, "status") if resource.custom.is_some() => &ONLY_STATUS_OF_CUSTOM,
        ("pods", "status") => &OF_POD_STATUS,
        ("deployments", "status") => &OF_DEPLOYMENT_STATUS,
        (
            "customresourcedefinitions" | "validatingadmissionpolicies" | "volumeattachments",
            "status",
        ) => &ONLY_STATUS,
        ("certificatesigningrequests", "status") => &OF_SIGNING,
        ("certificatesigningrequests", "approval") => &OF_APPROVAL,
        (_, "status") => &NO_SPEC,
        ("namespaces", "finalize") => &NO_STATUS,
        ("pods", "ephemeralcontainers") => &OF_EPHEMERAL,
        ("pods", "resize") => &OF_RESIZE,
        _ => &ALL,
    }
}
