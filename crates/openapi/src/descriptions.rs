//! What the API says about its types and fields.
//!
//! The texts are gathered by the build script from the source of `k8s-openapi` and lie compressed in
//! the binary, in blocks of some 32 KiB. A [`Descriptions`] unpacks the blocks it is asked about and
//! keeps them as long as it lives, which is one document: an idle server holds none.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::rc::Rc;

use flate2::read::ZlibDecoder;
use schema::{ColumnText, Type, registry};

use crate::schemas::schema_name;

/// The first definition of each block, and the place of the block.
static BLOCKS: &[(&str, Range<usize>)] = include!(concat!(env!("OUT_DIR"), "/blocks.rs"));
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.bin"));

/// Between records, and between the parts of a record; the build script's.
const RECORD: char = '\u{1e}';
const PART: char = '\u{1f}';

/// Unpacks descriptions and remembers what it has unpacked.
#[derive(Default)]
pub struct Descriptions {
    unpacked: RefCell<HashMap<usize, Rc<str>>>,
}

/// The descriptions of one definition.
pub struct Described {
    block: Rc<str>,
    record: Range<usize>,
}

impl Descriptions {
    /// Nothing is unpacked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is said about a type of the API.
    pub fn of_type(&self, ty: &Type) -> Option<Described> {
        self.of(&schema_name(ty))
    }

    /// What is said about a definition, such as `io.k8s.api.core.v1.Pod`.
    pub fn of(&self, definition: &str) -> Option<Described> {
        let at = BLOCKS.partition_point(|(first, _)| *first <= definition).checked_sub(1)?;
        let block = self.unpack(at);
        let mut start = 0;
        for record in block.split_terminator(RECORD) {
            let end = start + record.len();
            if record.split(PART).next() == Some(definition) {
                return Some(Described { block, record: start..end });
            }
            start = end + RECORD.len_utf8();
        }
        None
    }

    /// The description of a column of a server-side table.
    pub fn of_column(&self, text: &ColumnText) -> String {
        match text {
            ColumnText::Words(words) => (*words).to_owned(),
            ColumnText::Field { ty, field } => {
                let described = registry().type_named(ty).and_then(|ty| self.of_type(ty));
                described.as_ref().and_then(|it| it.field(field)).unwrap_or_default().to_owned()
            }
        }
    }

    fn unpack(&self, at: usize) -> Rc<str> {
        let mut unpacked = self.unpacked.borrow_mut();
        let block = unpacked.entry(at).or_insert_with(|| {
            let mut text = String::new();
            let read = ZlibDecoder::new(&PACKED[BLOCKS[at].1.clone()]).read_to_string(&mut text);
            debug_assert!(read.is_ok(), "the build script wrote what cannot be read");
            text.into()
        });
        block.clone()
    }
}

impl Described {
    /// The description of the type itself.
    pub fn itself(&self) -> Option<&str> {
        self.field("")
    }

    /// The description of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut parts = self.block[self.record.clone()].split(PART).skip(1);
        while let (Some(field), Some(text)) = (parts.next(), parts.next()) {
            if field == name {
                return Some(text);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_nearly_every_field_is_described() {
        let descriptions = Descriptions::new();
        let (mut described, mut all) = (0, 0);
        for group in registry().groups() {
            for resource in group.versions.iter().flat_map(|version| &version.resources) {
                let ty = registry().kind(&resource.gvk()).unwrap();
                let found = descriptions.of_type(ty);
                let found = found.unwrap_or_else(|| panic!("{} is not described", ty.path));
                assert!(found.itself().is_some(), "{}", ty.path);
                all += ty.fields().len();
                described += ty.fields().iter().filter(|f| found.field(&f.name).is_some()).count();
            }
        }
        assert!(described * 100 > all * 95, "{described} of {all}");
    }

    #[test]
    fn every_column_has_a_description() {
        let descriptions = Descriptions::new();
        for group in registry().groups() {
            for resource in group.versions.iter().flat_map(|version| &version.resources) {
                for column in &resource.columns {
                    let text = descriptions.of_column(&column.text);
                    // Upstream says nothing about this one.
                    let is_silent = (&*resource.name, column.name) == ("runtimeclasses", "Handler");
                    assert_eq!(text.is_empty(), is_silent, "{} {}", resource.name, column.name);
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_definition_is_not_described() {
        let descriptions = Descriptions::new();
        for name in ["", "a", "io.k8s.api.core.v1.Po", "zzz"] {
            assert!(descriptions.of(name).is_none(), "{name}");
        }
        let pod = descriptions.of("io.k8s.api.core.v1.Pod").unwrap();
        assert!(pod.field("spec").is_some() && pod.field("nope").is_none());
    }
}
