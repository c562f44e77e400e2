//! All built-in tables, and where to find them.
//!
//! The text is scanned once for its headings; a table is parsed when it is first asked for and then
//! kept.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use meta::{GroupVersionKind, GroupVersionResource};

use crate::discovery::{self, Column, FieldSelectors, Group, Resource, Selectable};
use crate::runtime_config::{Known, RuntimeConfig};
use crate::table::Type;

static TYPES: &str = include_str!("../generated/types.txt");
/// Tables of the versions that are not served unless somebody asks for them.
static UNSERVED: &str = include_str!("../generated/unserved.txt");
static CONFIG: OnceLock<RuntimeConfig> = OnceLock::new();
static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::load(CONFIG.get_or_init(RuntimeConfig::default)));

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
    /// Resources of default versions that the configuration switches off. Others may be kept in
    /// them.
    hidden: Vec<Resource>,
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
    let mut every = Registry::load(&RuntimeConfig::default());
    every.index(UNSERVED);
    every
});

/// The registry was in use already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the versions to serve were chosen already")]
pub struct AlreadyConfigured;

/// Chooses the versions that this process serves. Before the first use of [`registry`]: a process
/// has one registry, as upstream has one scheme.
///
/// # Errors
/// When it is too late for that.
pub fn configure(config: RuntimeConfig) -> Result<(), AlreadyConfigured> {
    CONFIG.set(config).map_err(|_| AlreadyConfigured)
}

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

    /// A resource, whether it is served or only stored.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.find(group, version, |resource| resource.name == plural)
    }

    /// The resource whose objects have this kind.
    pub fn resource_of_kind(&self, gvk: &GroupVersionKind) -> Option<&Resource> {
        self.find(&gvk.group, &gvk.version, |resource| resource.kind == gvk.kind)
    }

    /// Discovery: what is served, the groups in upstream's order.
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

    fn find(
        &self,
        group: &str,
        version: &str,
        is_wanted: impl Fn(&Resource) -> bool,
    ) -> Option<&Resource> {
        let is_wanted = |found: &&Resource| found.version == version && is_wanted(found);
        let group_of = self.groups.iter().find(|found| found.name == group);
        let versions = group_of.into_iter().flat_map(|found| &found.versions);
        let mut served = versions.flat_map(|found| &found.resources);
        let mut hidden = self.hidden.iter().filter(|found| found.group == group);
        served.find(is_wanted).or_else(|| hidden.find(is_wanted))
    }

    fn load(config: &RuntimeConfig) -> Self {
        let mut registry = Self {
            blocks: Vec::new(),
            by_path: HashMap::new(),
            by_kind: HashMap::new(),
            enums: HashMap::new(),
            groups: Vec::new(),
            hidden: Vec::new(),
            selectable: Vec::new(),
        };
        registry.index(TYPES);
        let found = discovery::load(config);
        if found.has_optional {
            registry.index(UNSERVED);
        }
        (registry.groups, registry.hidden) = (found.groups, found.hidden);
        registry.selectable = found.selectable;
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

/// What a command line may speak of: every group and version that has a table.
pub(crate) struct Vocabulary;

impl Vocabulary {
    fn any(is_wanted: impl Fn(&str, &str) -> bool) -> bool {
        let lines = TYPES.lines().chain(UNSERVED.lines());
        lines.filter_map(|line| line.strip_prefix("T\t")).any(|line| {
            let mut columns = line.split('\t').skip(1);
            let (group, version) = (columns.next().unwrap_or(""), columns.next().unwrap_or(""));
            !group.is_empty() && is_wanted(group, version)
        })
    }
}

impl Known for Vocabulary {
    fn is_group(&self, group: &str) -> bool {
        Self::any(|found, _| found == group)
    }

    fn is_version(&self, group: &str, version: &str) -> bool {
        Self::any(|found, of| found == group && of == version)
    }
}

#[cfg(test)]
mod tests;
