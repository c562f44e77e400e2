//! VolumeAttachments.

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::persistent_volume;
use crate::resource::driver;

const MAX_METADATA_BYTES: usize = 256 * 1024;
const MAX_MESSAGE: usize = 1024;

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    validate(object, out);
    let name = object.get("spec").get("source").get("persistentVolumeName");
    if name.is_set() {
        name.subdomain(out);
    }
}

/// What is wanted does not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    validate(new, out);
    let spec = new.get("spec");
    if spec.value != old.get("spec").value {
        let finding = spec.invalid("field is immutable");
        out.push(finding.shown_as("storage/v1.VolumeAttachmentSpec"));
    }
}

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let (spec, status) = (object.get("spec"), object.get("status"));
    driver(&spec.get("attacher"), out);
    source(&spec.get("source"), out);
    spec.get("nodeName").subdomain(out);
    let metadata = status.get("attachmentMetadata");
    let size: usize = metadata.entries().map(|(key, value)| key.len() + value.text().len()).sum();
    if size > MAX_METADATA_BYTES {
        out.push(FieldError::too_long(&metadata.path, MAX_METADATA_BYTES));
    }
    for field in ["attachError", "detachError"] {
        let error = status.get(field);
        error.get("message").no_longer_than(MAX_MESSAGE, out);
        let code = error.get("errorCode");
        if code.int() < 0 {
            out.push(code.invalid("must be between 0 and math.MaxInt32, inclusive"));
        }
    }
}

fn source(source: &Node<'_>, out: &mut Findings) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let (inline, name) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => out.push(FieldError::required(&source.path, ONE)),
        (true, true) => out.push(source.forbidden(ONE)),
        (false, true) if name.text().is_empty() => {
            let detail = "must specify non empty persistentVolumeName";
            out.push(FieldError::required(&name.path, detail));
        }
        (true, false) => persistent_volume::spec(&inline, true, out),
        (false, true) => {}
    }
}
