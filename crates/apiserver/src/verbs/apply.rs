//! PATCH that applies a configuration: server-side apply.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/patch.go`, `applyPatcher`.

use std::fmt;

use http::Response;
use meta::Status;
use schema::FieldValidation;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::patch::PatchType;
use super::{answer, object_form};
use crate::audit;
use crate::context::{RequestContext, WriteRequest};
use crate::errors;
use crate::options::WriteOptions;
use crate::ownership::{self, Target};
use crate::resources::Resource;
use crate::strategy::apply_approval;
use crate::write::{self, Creates, Part, Update};
use connection::Body;

/// The media type of configurations.
pub(crate) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

pub(crate) async fn apply(
    request: &WriteRequest<'_>,
    resource: &Resource,
    part: Part,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = object_form(ctx)?;
    let options = WriteOptions::of_patch(ctx, true)?;
    audit::requested_patch(ctx, PatchType::Apply, &request.body);
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part,
        is_dry_run: options.is_dry_run,
        creates: if part == Part::Main { Creates::Always } else { Creates::Never },
        manager: None,
    };
    let is_approval = ctx.info.subresource == "approval";
    let now = meta::time::rfc3339(ctx.server.clock.now());
    let change = |old: Option<&Value>| {
        let mut new = applied(ctx, resource, &options, old, &request.body)?;
        if let (true, Some(old)) = (is_approval, old) {
            apply_approval(&mut new, old, &now);
        }
        Ok(new)
    };
    let written = write::update(ctx, resource, &update, &change).await?;
    Ok(answer(ctx, resource, &written, form))
}

/// The working form after the body of a request is applied to the live object.
pub(crate) fn applied(
    ctx: &RequestContext,
    resource: &Resource,
    options: &WriteOptions,
    live: Option<&Value>,
    body: &[u8],
) -> Result<Value, Status> {
    let mut new = applied_to(ctx, Target::of(resource), options, live, body)?;
    check_named(&new, &ctx.info.name)?;
    if live.is_none() {
        refuse_uid(ctx, resource, &new)?;
        // There is no version to be of.
        crate::strategy::remove(&mut new["metadata"], "resourceVersion");
    }
    Ok(new)
}

/// What a patch makes must have a name.
pub(crate) fn check_named(object: &Value, in_path: &str) -> Result<(), Status> {
    if !write::text(object, "/metadata/name").is_empty() {
        return Ok(());
    }
    Err(errors::bad_request(format!(
        "the name of the object ({in_path} based on URL) was undeterminable: name must be provided"
    )))
}

/// The same for any kind, whatever becomes of names and versions.
pub(crate) fn applied_to(
    ctx: &RequestContext,
    target: Target<'_>,
    options: &WriteOptions,
    live: Option<&Value>,
    body: &[u8],
) -> Result<Value, Status> {
    let config = config(body)?;
    let live = (live, &config);
    let new = ownership::applied(ctx, target, &options.manager, live, options.is_forced)?;
    warn_of_duplicates(ctx, options, body)?;
    Ok(new)
}

/// The configuration in a body: an object, in YAML or the JSON that is YAML too.
fn config(body: &[u8]) -> Result<Value, Status> {
    let refused = |why: String| errors::bad_request(format!("error decoding YAML: {why}"));
    let parsed = serde_json::from_slice(body).or_else(|_| {
        let parsed = schema::yaml_to_value(body).map(|(value, _)| value);
        parsed.map_err(|error| refused(format!("error converting YAML to JSON: {error}")))
    })?;
    let word = match parsed {
        Value::Object(_) => return Ok(parsed),
        Value::Null => return Ok(Value::Object(serde_json::Map::new())),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    Err(refused(format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {word} into Go value \
         of type map[string]interface {{}}"
    )))
}

/// Tells of fields that are given twice.
fn warn_of_duplicates(
    ctx: &RequestContext,
    options: &WriteOptions,
    body: &[u8],
) -> Result<(), Status> {
    if options.validation == FieldValidation::Ignore {
        return Ok(());
    }
    // Nearly all bodies are JSON in which nothing is given twice.
    if serde_json::from_slice::<Unique>(body).is_ok() {
        return Ok(());
    }
    let Ok((_, found)) = schema::yaml_to_value(body) else { return Ok(()) };
    let Some(first) = found.first() else { return Ok(()) };
    if options.validation == FieldValidation::Strict {
        return Err(errors::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal \
             errors:\n  {first}"
        )));
    }
    found.iter().for_each(|finding| ctx.warn(finding));
    Ok(())
}

fn refuse_uid(ctx: &RequestContext, resource: &Resource, new: &Value) -> Result<(), Status> {
    let uid = write::text(new, "/metadata/uid");
    if uid.is_empty() {
        return Ok(());
    }
    let why = format!(
        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
    );
    Err(errors::conflict(&resource.group_resource(), &ctx.info.name, &why))
}

/// JSON in which no object has a member twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Unique>()?;
            if !seen.insert(key) {
                return Err(serde::de::Error::custom("a member is given twice"));
            }
        }
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        while items.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_are_configurations() {
        assert_eq!(config(b"a: 1").unwrap(), serde_json::json!({"a": 1}));
        assert_eq!(config(b"").unwrap(), serde_json::json!({}));
        assert_eq!(
            config(b"[]").unwrap_err().message,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot \
             unmarshal array into Go value of type map[string]interface {}"
        );
    }

    #[test]
    fn members_given_twice_are_found_at_any_depth() {
        assert!(serde_json::from_slice::<Unique>(br#"{"a":[{"b":1,"c":null}],"b":"x"}"#).is_ok());
        assert!(serde_json::from_slice::<Unique>(br#"{"a":[{"b":1,"b":2}]}"#).is_err());
    }
}
