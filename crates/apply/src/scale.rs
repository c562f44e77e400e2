//! Managed fields of a scale: who owns the replicas of the object behind it.
//!
//! Upstream: `apimachinery/pkg/util/managedfields/scalehandler.go`.

use serde_json::Value;

use crate::element::Element;
use crate::fields_v1::FieldsError;
use crate::managed::{Entry, Fields, Managed, Manager};
use crate::set::FieldSet;

/// The version in which scales are served.
const SCALE_VERSION: &str = "autoscaling/v1";

/// The managed fields of the scale of an object, from those of the object. `replicas` is where the
/// object has them.
///
/// # Errors
/// When they cannot be read.
pub fn to_scale(object: &[Value], replicas: &[&str]) -> Result<Vec<Value>, FieldsError> {
    let owner = |mut entry: Entry| {
        entry.fields = Fields::Set(replicas_of_scale());
        SCALE_VERSION.clone_into(&mut entry.manager.api_version);
        entry
    };
    let entries = Managed::decode(object)?.entries.into_iter();
    let owners = entries.filter(|entry| entry.fields.set().contains(&steps(replicas)));
    Ok(Managed { entries: owners.map(owner).collect() }.encode())
}

/// The managed fields of an object after its scale was written, from those it had and those of the
/// scale. `api_version` is the object's.
///
/// # Errors
/// When they cannot be read.
pub fn from_scale(
    object: &[Value],
    scale: &[Value],
    replicas: &[&str],
    api_version: &str,
) -> Result<Vec<Value>, FieldsError> {
    let path = steps(replicas);
    let mut of_scale = Managed::decode(scale)?.entries;
    let mut kept = Vec::new();
    for mut entry in Managed::decode(object)?.entries {
        if entry.fields.set().contains(&path) {
            let same = |other: &Entry| other.manager.is_same(&as_in_scale(&entry.manager));
            match of_scale.iter().position(same) {
                Some(at) => drop(of_scale.remove(at)),
                None => entry.fields.set_mut().subtract(&FieldSet::of(&[replicas])),
            }
        }
        if !entry.fields.set().is_empty() {
            kept.push(entry);
        }
    }
    let scale_path = steps(&["spec", "replicas"]);
    let owners = of_scale.into_iter().filter(|entry| entry.fields.set().contains(&scale_path));
    for mut entry in owners {
        entry.fields = Fields::Set(FieldSet::of(&[replicas]));
        api_version.clone_into(&mut entry.manager.api_version);
        kept.push(entry);
    }
    Ok(Managed { entries: kept }.encode())
}

/// A manager of the object as it shows in the scale.
fn as_in_scale(manager: &Manager) -> Manager {
    Manager { api_version: SCALE_VERSION.to_owned(), ..manager.clone() }
}

fn replicas_of_scale() -> FieldSet {
    FieldSet::of(&[&["spec", "replicas"]])
}

fn steps(path: &[&str]) -> Vec<Element> {
    path.iter().map(|name| Element::field((*name).to_owned())).collect()
}
