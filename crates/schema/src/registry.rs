//! All built-in tables, and where to find them.
//!
//! The text is scanned once for its headings; a table is parsed when it is first asked for and then
//! kept.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use meta::{GroupVersionKind, GroupVersionResource};

use crate::discovery::{self, Column, FieldSelectors, Group, Resource, Selectable};
use crate::table::Type;

static TYPES: &str = include_str!("../generated/types.txt");
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::load);

/// Kinds of `meta.k8s.io` that upstream registers under every group and version.
const EVERYWHERE: [&str; 7] = [
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PatchOptions",
    "UpdateOptions",
    "WatchEvent",
];

/// The built-in kinds and resources.
pub struct Registry {
    blocks: Vec<Block>,
    by_path: HashMap<&'static str, usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
    enums: HashMap<&'static str, &'static str>,
    groups: Vec<Group>,
    selectable: Vec<Selectable>,
}

struct Block {
    text: &'static str,
    table: OnceLock<Type>,
}

/// The served kinds first, at the same places, and then those of versions that are not served: the
/// codecs must do for every table there is.
#[cfg(test)]
pub(crate) static EVERY_VERSION: LazyLock<Registry> = LazyLock::new(|| {
    let mut every = Registry::load();
    every.index(include_str!("../generated/unserved.txt"));
    every
});

/// The one registry of built-in kinds; loaded at first use, in well under a millisecond.
pub fn registry() -> &'static Registry {
    &REGISTRY
}

impl Registry {
    /// The table of a kind. Options kinds are known under every group and version, and the kinds of
    /// `meta.k8s.io/v1` under the core `v1` too, as upstream registers them.
    pub fn kind(&self, gvk: &GroupVersionKind) -> Option<&Type> {
        let find = |group: &str, version: &str| {
            // The borrow checker wants one lifetime for the three parts of the key.
            self.by_kind.get(&(group, version, gvk.kind.as_str()) as &(&str, &str, &str)).copied()
        };
        let index = find(&gvk.group, &gvk.version).or_else(|| {
            let shared = EVERYWHERE.contains(&gvk.kind.as_str())
                || (gvk.group.is_empty() && gvk.version == "v1");
            if shared { find("meta.k8s.io", "v1") } else { None }
        })?;
        Some(self.at(index))
    }

    /// A table by Go's package and name, such as `core/v1.PodSpec`.
    pub fn type_named(&self, path: &str) -> Option<&Type> {
        self.by_path.get(path).map(|index| self.at(*index))
    }

    /// A resource that is served by default.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.resources(group, version).iter().find(|resource| resource.name == plural)
    }

    /// The resource whose objects have this kind.
    pub fn resource_of_kind(&self, gvk: &GroupVersionKind) -> Option<&Resource> {
        self.resources(&gvk.group, &gvk.version).iter().find(|resource| resource.kind == gvk.kind)
    }

    /// Discovery: the groups in upstream's order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The columns of a resource's table; empty for kinds with the default columns.
    pub fn columns(&self, gvr: &GroupVersionResource) -> &[Column] {
        self.resource(&gvr.group, &gvr.version, &gvr.resource)
            .map_or(&[], |resource| &resource.columns)
    }

    /// What field selectors a kind has.
    pub fn field_selectors(&self, gvk: &GroupVersionKind) -> FieldSelectors<'_> {
        FieldSelectors::of(gvk, &self.selectable)
    }

    /// The values of a named string type, such as `core/v1.RestartPolicy`; empty when it has none.
    pub fn enum_values(&self, path: &str) -> impl Iterator<Item = &'static str> {
        self.enums.get(path).into_iter().flat_map(|values| values.split('|'))
    }

    /// Every table, parsed or not.
    pub fn types(&self) -> impl Iterator<Item = &Type> {
        (0..self.blocks.len()).map(|index| self.at(index))
    }

    pub(crate) fn at(&self, index: usize) -> &Type {
        #[cfg(test)]
        if index >= self.blocks.len() {
            return EVERY_VERSION.at(index);
        }
        let block = &self.blocks[index];
        let lookup = |path: &str| self.by_path.get(path).copied();
        block.table.get_or_init(|| Type::parse(block.text, &lookup))
    }

    fn resources(&self, group: &str, version: &str) -> &[Resource] {
        self.groups
            .iter()
            .filter(|found| found.name == group)
            .flat_map(|found| &found.versions)
            .find(|found| found.version == version)
            .map_or(&[], |found| &found.resources)
    }

    fn load() -> Self {
        let mut registry = Self {
            blocks: Vec::new(),
            by_path: HashMap::new(),
            by_kind: HashMap::new(),
            enums: HashMap::new(),
            groups: Vec::new(),
            selectable: Vec::new(),
        };
        registry.index(TYPES);
        (registry.groups, registry.selectable) = discovery::load();
        registry
    }

    fn index(&mut self, text: &'static str) {
        let mut starts: Vec<usize> = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if let Some(rest) = line.strip_prefix("E\t") {
                let (path, values) = rest.trim_end().split_once('\t').unwrap_or((rest, ""));
                self.enums.insert(path, values);
            }
            // A heading of either sort ends the block before it.
            if line.starts_with("T\t") || line.starts_with("E\t") {
                starts.push(at);
            }
            at += line.len();
        }
        starts.push(text.len());
        for pair in starts.windows(2) {
            let block = &text[pair[0]..pair[1]];
            if !block.starts_with("T\t") {
                continue;
            }
            let mut columns = block.lines().next().unwrap_or("").split('\t').skip(1);
            let path = columns.next().unwrap_or("");
            let (group, version) = (columns.next().unwrap_or(""), columns.next().unwrap_or(""));
            let name = path.rsplit('.').next().unwrap_or(path);
            let index = self.blocks.len();
            self.by_path.insert(path, index);
            if block.lines().nth(1).is_some_and(|line| line.starts_with("kind\to?\t0\t")) {
                self.by_kind.insert((group, version, name), index);
            }
            self.blocks.push(Block { text: block, table: OnceLock::new() });
        }
    }
}
