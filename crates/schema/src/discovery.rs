//! Groups, versions and resources, with their table columns and field selectors.
//!
//! `generated/resources.txt` has one line per thing, columns separated by tabs: `G` group and
//! preferred version, `V` version, `R` resource (name, singular, kind, `n` if namespaced, verbs,
//! short names, categories), `S` subresource of the resource above (name, kind, group, version,
//! verbs), `C` table column (name, type, format, priority), `F` field selectors of a kind (group,
//! version, kind, keys, aliases, error).
//!
//! `data/optional.txt` has, in the same form, the versions that are served on demand. `=` is a
//! resource that is the same as in the group's preferred version, and `N` the feature gate that the
//! resource above needs.
//!
//! `data/columns.txt` says what the columns mean: a line with the resource, then indented lines with
//! a column and either the field that has the same description, after `@`, or the words themselves.

use std::collections::HashMap;

use meta::GroupVersionKind;

use crate::runtime_config::RuntimeConfig;
use crate::table::Text;

static OPTIONAL: &str = include_str!("../data/optional.txt");
static RESOURCES: &str = include_str!("../generated/resources.txt");
static COLUMNS: &str = include_str!("../data/columns.txt");

/// An API group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Name; empty for the core group.
    pub name: Text,
    /// The version clients should use.
    pub preferred_version: Text,
    /// Its versions, preferred first.
    pub versions: Vec<Version>,
}

/// One version of a group.
#[derive(Clone, Debug)]
pub struct Version {
    /// Such as `v1`.
    pub version: Text,
    /// Its resources, by name.
    pub resources: Vec<Resource>,
}

/// A resource of one version.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Group, empty for core.
    pub group: Text,
    /// Version.
    pub version: Text,
    /// Plural name.
    pub name: Text,
    /// Singular name.
    pub singular: Text,
    /// Kind of its objects.
    pub kind: Text,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs.
    pub verbs: Vec<&'static str>,
    /// Short names.
    pub short_names: Vec<Text>,
    /// Categories.
    pub categories: Vec<Text>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Columns of its table; empty for the default ones.
    pub columns: Vec<Column>,
}

impl Resource {
    /// The full name of its kind.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&*self.group, &*self.version, &*self.kind)
    }

    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
}

/// A subresource, such as `status`.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// Name after the slash.
    pub name: &'static str,
    /// Kind of what is sent.
    pub kind: Text,
    /// Group of that kind.
    pub group: Text,
    /// Version of that kind.
    pub version: Text,
    /// Verbs.
    pub verbs: Vec<&'static str>,
}

/// A column of a server-side table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, …
    pub column_type: &'static str,
    /// `name` for the column that holds the name.
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// What it means.
    pub text: ColumnText,
}

/// Where the description of a column is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnText {
    /// It is that of a field.
    Field {
        /// Go's package and name of the type, such as `core/v1.PodSpec`.
        ty: &'static str,
        /// The field's name in JSON.
        field: &'static str,
    },
    /// These words.
    Words(&'static str),
}

impl ColumnText {
    /// The column with the object's name.
    pub const NAME: Self = Self::Field { ty: "meta/v1.ObjectMeta", field: "name" };
    /// The column with its age, or the time of its creation.
    pub const CREATED: Self = Self::Field { ty: "meta/v1.ObjectMeta", field: "creationTimestamp" };

    fn parse(text: &'static str) -> Self {
        match text.strip_prefix('@').and_then(|path| path.rsplit_once('.')) {
            Some((ty, field)) => Self::Field { ty, field },
            None => Self::Words(text),
        }
    }

    /// What the columns mean that most tables have.
    fn usual(column: &str, format: &str) -> Self {
        match column {
            _ if format == "name" => Self::NAME,
            "Age" | "Created At" => Self::CREATED,
            _ => Self::Words(""),
        }
    }
}

/// The field selectors of one kind.
#[derive(Clone, Debug)]
pub struct FieldSelectors<'a> {
    gvk: GroupVersionKind,
    listed: Option<&'a Selectable>,
}

#[derive(Clone, Debug)]
pub(crate) struct Selectable {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    keys: Vec<&'static str>,
    aliases: Vec<(&'static str, &'static str)>,
    error: &'static str,
}

const DEFAULT_KEYS: [&str; 2] = ["metadata.name", "metadata.namespace"];

impl<'a> FieldSelectors<'a> {
    pub(crate) fn of(gvk: &GroupVersionKind, all: &'a [Selectable]) -> Self {
        let listed = all.iter().find(|selectable| {
            (selectable.group, selectable.version, selectable.kind)
                == (gvk.group.as_str(), gvk.version.as_str(), gvk.kind.as_str())
        });
        Self { gvk: gvk.clone(), listed }
    }

    /// The keys that may be selected by.
    pub fn keys(&self) -> &[&'static str] {
        self.listed.map_or(&DEFAULT_KEYS, |listed| &listed.keys)
    }

    /// The key that a key stands for.
    ///
    /// # Errors
    /// Upstream's text when the kind has no such key.
    pub fn resolve<'k>(&self, key: &'k str) -> Result<&'k str, String> {
        if self.keys().contains(&key) {
            return Ok(key);
        }
        let Some(listed) = self.listed else {
            return Err(format!(
                "{key:?} is not a known field selector: only \"metadata.name\", \
                 \"metadata.namespace\""
            ));
        };
        if let Some((_, target)) = listed.aliases.iter().find(|(alias, _)| *alias == key) {
            return Ok(target);
        }
        Err(if listed.error.contains("%q") {
            listed.error.replace("%q", &format!("{key:?}"))
        } else if listed.error.contains("%s") {
            listed.error.replace("%s", key)
        } else {
            format!("field label not supported: {key}")
        })
    }

    /// The kind these belong to.
    pub fn gvk(&self) -> &GroupVersionKind {
        &self.gvk
    }
}

/// What there is, as a configuration has it.
pub(crate) struct Loaded {
    /// What is served.
    pub(crate) groups: Vec<Group>,
    /// Resources that are not served.
    pub(crate) hidden: Vec<Resource>,
    pub(crate) selectable: Vec<Selectable>,
    /// Whether any of it is not served by default.
    pub(crate) has_optional: bool,
}

pub(crate) fn load(config: &RuntimeConfig) -> Loaded {
    let mut groups: Vec<Group> = Vec::new();
    let mut selectable = Vec::new();
    let texts = column_texts();
    for line in RESOURCES.lines() {
        let columns: Vec<&'static str> = line.split('\t').collect();
        match columns[..] {
            ["G", name, preferred_version] => {
                groups.push(Group {
                    name: Text::Borrowed(name),
                    preferred_version: Text::Borrowed(preferred_version),
                    versions: Vec::new(),
                });
            }
            ["F", group, version, kind, keys, aliases, error] => {
                let aliases = split(aliases);
                let aliases = aliases.iter().filter_map(|pair| pair.split_once('=')).collect();
                let keys = split(keys);
                selectable.push(Selectable { group, version, kind, keys, aliases, error });
            }
            _ => load_in_group(groups.last_mut(), &columns, &texts),
        }
    }
    let mut optional = optional(&groups, &texts);
    let mut hidden = Vec::new();
    for version in groups.iter_mut().flat_map(|group| &mut group.versions) {
        hide(version, config, &mut hidden, |_| None);
    }
    for (group, version) in &mut optional {
        hide(version, config, &mut hidden, |resource| {
            gate_of(group, &resource.version, &resource.name)
        });
    }
    optional.retain(|(_, version)| !version.resources.is_empty());
    let has_optional = !optional.is_empty();
    for (name, version) in optional {
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.versions.push(version),
            // No version of it is served by default.
            None => groups.push(Group {
                name,
                preferred_version: version.version.clone(),
                versions: vec![version],
            }),
        }
    }
    for group in &mut groups {
        group.versions.retain(|version| !version.resources.is_empty());
        let is_there = group.versions.iter().any(|v| v.version == group.preferred_version);
        if let (false, Some(first)) = (is_there, group.versions.first()) {
            group.preferred_version = first.version.clone();
        }
    }
    groups.retain(|group| !group.versions.is_empty());
    Loaded { groups, hidden, selectable, has_optional }
}

/// Takes out what the configuration does not serve.
fn hide(
    version: &mut Version,
    config: &RuntimeConfig,
    hidden: &mut Vec<Resource>,
    gate: impl Fn(&Resource) -> Option<&'static str>,
) {
    let all = std::mem::take(&mut version.resources);
    let (served, not): (Vec<_>, Vec<_>) = all.into_iter().partition(|resource| {
        let group = &*resource.group;
        // Without its own group the server could not even start; upstream does not start either.
        group.is_empty() || config.serves(group, &resource.version, &resource.name, gate(resource))
    });
    version.resources = served;
    hidden.extend(not);
}

/// The versions that are not served by default, with the names of their groups.
fn optional(stable: &[Group], texts: &Texts) -> Vec<(Text, Version)> {
    let mut groups: Vec<Group> = Vec::new();
    for line in OPTIONAL.lines() {
        let columns: Vec<&'static str> = line.split('\t').collect();
        match columns[..] {
            ["G", name, preferred_version] => {
                groups.push(Group {
                    name: Text::Borrowed(name),
                    preferred_version: Text::Borrowed(preferred_version),
                    versions: Vec::new(),
                });
            }
            ["=", name] => {
                let Some(group) = groups.last_mut() else { continue };
                let twin = twin(stable, group, name);
                if let (Some(version), Some(twin)) = (group.versions.last_mut(), twin) {
                    version.resources.push(of_version(twin, &version.version));
                }
            }
            _ => load_in_group(groups.last_mut(), &columns, texts),
        }
    }
    let versions = |group: Group| {
        let name = group.name;
        group.versions.into_iter().map(move |version| (name.clone(), version))
    };
    groups.into_iter().flat_map(versions).collect()
}

/// The resource in the preferred version.
fn twin<'a>(stable: &'a [Group], group: &Group, name: &str) -> Option<&'a Resource> {
    let found = stable.iter().find(|found| found.name == group.name)?;
    let version = found.versions.iter().find(|v| v.version == group.preferred_version)?;
    version.resources.iter().find(|resource| resource.name == name)
}

fn of_version(twin: &Resource, version: &Text) -> Resource {
    let mut resource = Resource { version: version.clone(), ..twin.clone() };
    let own = (&twin.group, &twin.version);
    for sub in &mut resource.subresources {
        if (&sub.group, &sub.version) == own {
            sub.version = version.clone();
        }
    }
    resource
}

/// The feature gates that any resource needs.
pub(crate) fn gates() -> impl Iterator<Item = &'static str> {
    OPTIONAL.lines().filter_map(|line| line.strip_prefix("N\t"))
}

/// The feature gate that a resource needs.
pub(crate) fn gate_of(group: &str, version: &str, resource: &str) -> Option<&'static str> {
    let (mut in_group, mut in_version, mut at_resource) = (false, false, false);
    for line in OPTIONAL.lines() {
        let mut columns = line.split('\t');
        let (letter, word) = (columns.next()?, columns.next()?);
        match letter {
            "G" => (in_group, in_version) = (word == group, false),
            "V" => in_version = in_group && word == version,
            "R" | "=" => at_resource = in_version && word == resource,
            "N" if at_resource => return Some(word),
            _ => {}
        }
    }
    None
}

/// By resource, such as `apps/v1/deployments`, and column.
type Texts = HashMap<(&'static str, &'static str), ColumnText>;

fn column_texts() -> Texts {
    let mut texts = Texts::new();
    let mut resource = "";
    for line in COLUMNS.lines() {
        match line.strip_prefix('\t').and_then(|rest| rest.split_once('\t')) {
            Some((column, text)) => {
                texts.insert((resource, column), ColumnText::parse(text));
            }
            None => resource = line,
        }
    }
    texts
}

fn load_in_group(group: Option<&mut Group>, columns: &[&'static str], texts: &Texts) {
    let Some(group) = group else { return };
    if let ["V", version] = columns[..] {
        let version = Text::Borrowed(version);
        group.versions.push(Version { version, resources: Vec::new() });
        return;
    }
    let group_name = group.name.clone();
    let Some(version) = group.versions.last_mut() else { return };
    if let ["R", name, singular, kind, scope, verbs, short_names, categories] = columns[..] {
        version.resources.push(Resource {
            group: group_name,
            version: version.version.clone(),
            name: Text::Borrowed(name),
            singular: Text::Borrowed(singular),
            kind: Text::Borrowed(kind),
            namespaced: scope == "n",
            verbs: split(verbs),
            short_names: split(short_names).into_iter().map(Text::Borrowed).collect(),
            categories: split(categories).into_iter().map(Text::Borrowed).collect(),
            subresources: Vec::new(),
            columns: Vec::new(),
        });
        return;
    }
    let Some(resource) = version.resources.last_mut() else { return };
    match columns[..] {
        ["S", name, kind, group, version, verbs] => {
            resource.subresources.push(Subresource {
                name,
                kind: Text::Borrowed(kind),
                group: Text::Borrowed(group),
                version: Text::Borrowed(version),
                verbs: split(verbs),
            });
        }
        ["C", name, column_type, format, priority] => {
            let priority = priority.parse().unwrap_or(0);
            let version = [&*group_name, &*version.version, &*resource.name].join("/");
            let text = texts.get(&(version.trim_start_matches('/'), name));
            let text = text.copied().unwrap_or(ColumnText::usual(name, format));
            resource.columns.push(Column { name, column_type, format, priority, text });
        }
        _ => {}
    }
}

fn split(text: &'static str) -> Vec<&'static str> {
    text.split(',').filter(|word| !word.is_empty()).collect()
}
