//! Turns the facts about the API into the compact tables that `schema` loads.
//!
//! The formats are described at the head of `schema/src/table.rs` (types) and
//! `schema/src/discovery.rs` (resources).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Writes the tables under `crates/schema/generated/`; with `check`, only compares.
///
/// # Errors
/// When the facts cannot be read, or, with `check`, when a table is out of date.
pub(crate) fn run(facts: &Path, check: bool) -> Result<()> {
    let out = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schema/generated");
    let types = Types::read(&facts.join("types.jsonl"))?;
    emit(&out.join("types.txt"), &types.print(is_kept)?, check)?;
    // The codecs are tested with versions that are not served, too.
    let unserved = types.print(|pkg| !is_kept(pkg))?;
    emit(&out.join("unserved.txt"), &unserved, check)?;
    emit(&out.join("resources.txt"), &resources(facts)?, check)
}

fn emit(path: &Path, text: &str, check: bool) -> Result<()> {
    if !check {
        return fs::write(path, text).with_context(|| format!("write {}", path.display()));
    }
    let old = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    if old != text {
        bail!("{} is out of date: run `cargo xtask codegen`", path.display());
    }
    Ok(())
}

/// All type facts, by package and name.
struct Types {
    by_name: BTreeMap<(String, String), Value>,
    order: Vec<(String, String)>,
}

impl Types {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut types = Self { by_name: BTreeMap::new(), order: Vec::new() };
        for line in text.lines() {
            let fact: Value = serde_json::from_str(line)?;
            let key = (text_of(&fact, "pkg").to_owned(), text_of(&fact, "type").to_owned());
            types.order.push(key.clone());
            types.by_name.insert(key, fact);
        }
        Ok(types)
    }

    fn print(&self, is_wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut out = String::new();
        for key in &self.order {
            if !is_wanted(&key.0) {
                continue;
            }
            let fact = &self.by_name[key];
            if fact.get("fields").is_some() && special(&key.0, &key.1).is_none() {
                self.print_struct(key, fact, &mut out)?;
            } else if let Some(consts) = fact.get("consts").and_then(Value::as_object) {
                let values: BTreeSet<&str> = consts.values().filter_map(Value::as_str).collect();
                if !values.is_empty() {
                    let values: Vec<_> = values.into_iter().collect();
                    writeln!(out, "E\t{}.{}\t{}", short(&key.0), key.1, values.join("|"))?;
                }
            }
        }
        Ok(out)
    }

    fn print_struct(&self, key: &(String, String), fact: &Value, out: &mut String) -> Result<()> {
        let atomic = markers(fact).any(|marker| marker == "+structType=atomic");
        let message = text_of(fact, "protoMessage");
        writeln!(
            out,
            "T\t{}.{}\t{}\t{}\t{}\t{message}",
            short(&key.0),
            key.1,
            text_of(fact, "group"),
            text_of(fact, "version"),
            if atomic { "a" } else { "" },
        )?;
        self.print_fields(&key.0, fact, "", out)
    }

    /// Inline structs are flattened, as their JSON is; `within` keeps the path of messages that
    /// protobuf nests instead.
    fn print_fields(&self, pkg: &str, fact: &Value, within: &str, out: &mut String) -> Result<()> {
        for field in fact["fields"].as_array().into_iter().flatten() {
            let go = text_of(field, "go");
            let number = field["proto"]["n"].as_u64().unwrap_or(0);
            if text_of(field, "json") == "-" {
                continue;
            }
            if field["inline"] == true {
                let (pkg, name) = self.locate(pkg, go)?;
                let (pkg, name) = self.resolve_struct(pkg, name);
                let inner = self.by_name.get(&(pkg.clone(), name.clone()));
                let inner = inner.with_context(|| format!("inline {pkg}.{name}"))?;
                let path = match (number, within) {
                    // The kind and version are in the envelope, not in the message.
                    (0, _) => "-".to_owned(),
                    (number, "") => number.to_string(),
                    (number, within) => format!("{within}.{number}"),
                };
                self.print_fields(&pkg, inner, &path, out)?;
            } else if !text_of(field, "json").is_empty() {
                self.print_field(pkg, field, within, number, out)?;
            }
        }
        Ok(())
    }

    fn print_field(
        &self,
        pkg: &str,
        field: &Value,
        within: &str,
        number: u64,
        out: &mut String,
    ) -> Result<()> {
        let go = text_of(field, "go");
        let kind = self.kind(pkg, go)?;
        let mut flags = String::new();
        for (key, flag) in [("pointer", 'p'), ("omitempty", 'o'), ("omitzero", 'z')] {
            if field[key] == true {
                flags.push(flag);
            }
        }
        let has = |wanted: &str| markers(field).any(|marker| marker == wanted);
        if has("+optional") || has("+k8s:optional") {
            flags.push('?');
        }
        if has("+required") || has("+k8s:required") || has("+kubebuilder:validation:Required") {
            flags.push('!');
        }
        let number = if within == "-" {
            "0".to_owned()
        } else if within.is_empty() {
            number.to_string()
        } else {
            format!("{within}.{number}")
        };
        let go = self.reflected(pkg, go);
        let json = text_of(field, "json");
        write!(out, "{json}\t{flags}\t{number}\t{kind}\t{go}")?;
        for extra in extras(field) {
            write!(out, "\t{extra}")?;
        }
        if let Some(path) = self.closed_enum(pkg, text_of(field, "go")) {
            write!(out, "\tE={path}")?;
        }
        out.push('\n');
        Ok(())
    }

    /// The letter code of a Go type: see the table in `schema/src/table.rs`.
    fn kind(&self, pkg: &str, go: &str) -> Result<String> {
        let go = go.strip_prefix('*').unwrap_or(go);
        if go == "[]byte" {
            return Ok("y".to_owned());
        }
        if let Some(inner) = go.strip_prefix("[]") {
            return Ok(format!("[{}", self.kind(pkg, inner)?));
        }
        if let Some(rest) = go.strip_prefix("map[") {
            let (_, inner) = rest.split_once(']').context("map without a value type")?;
            return Ok(format!("{{{}", self.kind(pkg, inner)?));
        }
        let basic = match go {
            "string" => "s",
            "bool" => "b",
            "int32" => "i",
            "int64" | "time.Duration" => "l",
            "float64" => "d",
            "interface{}" => "J",
            "types.UID" | "types.NodeName" => "s",
            _ => "",
        };
        if !basic.is_empty() {
            return Ok(basic.to_owned());
        }
        let (pkg, name) = self.locate(pkg, go)?;
        if let Some(code) = special(&pkg, &name) {
            return Ok(code.to_owned());
        }
        let fact = self
            .by_name
            .get(&(pkg.clone(), name.clone()))
            .with_context(|| format!("no facts about {pkg}.{name}"))?;
        match fact.get("alias").and_then(Value::as_str) {
            // A named list that protobuf wraps in a message of its own.
            Some("[]string") if fact.get("protoFields").is_some() => Ok("V".to_owned()),
            Some(alias) => self.kind(&pkg, alias),
            None => Ok(format!("@{}.{name}", short(&pkg))),
        }
    }

    /// The named string of a field, or of its items, if it is marked as having no other values than
    /// its constants.
    fn closed_enum(&self, pkg: &str, go: &str) -> Option<String> {
        let go = go.strip_prefix('*').unwrap_or(go);
        let inner = go.strip_prefix("[]").or_else(|| go.strip_prefix("map[string]")).unwrap_or(go);
        let is_name = inner.chars().all(|c| c.is_alphanumeric() || c == '.');
        let (pkg, name) = self.locate(pkg, inner).ok().filter(|_| is_name)?;
        let fact = self.by_name.get(&(pkg.clone(), name.clone()))?;
        let is_closed = fact.get("consts").is_some() && markers(fact).any(|m| m == "+enum");
        is_closed.then(|| format!("{}.{name}", short(&pkg)))
    }

    /// The struct that a name stands for, through aliases.
    fn resolve_struct(&self, pkg: String, name: String) -> (String, String) {
        let alias = self
            .by_name
            .get(&(pkg.clone(), name.clone()))
            .and_then(|fact| fact.get("alias"))
            .and_then(Value::as_str);
        match alias.map(|alias| self.locate(&pkg, alias)) {
            Some(Ok((pkg, name))) => self.resolve_struct(pkg, name),
            _ => (pkg, name),
        }
    }

    /// Package and name of a Go type mentioned in `pkg`.
    fn locate(&self, pkg: &str, go: &str) -> Result<(String, String)> {
        let Some((alias, name)) = go.split_once('.') else {
            return Ok((pkg.to_owned(), go.to_owned()));
        };
        let candidates: &[&str] = match alias {
            "metav1" => &["apimachinery/pkg/apis/meta/v1"],
            "corev1" | "apiv1" => &["api/core/v1"],
            "authenticationv1" => &["api/authentication/v1"],
            "authorizationv1" => &["api/authorization/v1"],
            "batchv1" => &["api/batch/v1"],
            "resource" => &["apimachinery/pkg/api/resource"],
            "intstr" => &["apimachinery/pkg/util/intstr"],
            "runtime" => &["apimachinery/pkg/runtime"],
            "v1" => &[
                "api/core/v1",
                "apimachinery/pkg/apis/meta/v1",
                "api/admissionregistration/v1",
                "api/authentication/v1",
            ],
            _ => &[],
        };
        for candidate in candidates {
            let key = ((*candidate).to_owned(), name.to_owned());
            let same_name_elsewhere = *candidate == "api/core/v1"
                && name == "ObjectReference"
                && pkg.starts_with("apimachinery");
            if self.by_name.contains_key(&key) && !same_name_elsewhere {
                return Ok(key);
            }
        }
        // A version may speak of another version of its own group.
        let sibling = pkg.rsplit_once('/').map(|(group, _)| format!("{group}/{alias}"));
        if let Some(sibling) = sibling {
            let key = (sibling, name.to_owned());
            if self.by_name.contains_key(&key) {
                return Ok(key);
            }
        }
        bail!("{pkg}: unknown type {go}")
    }

    /// The type as Go's reflection prints it, for error messages.
    fn reflected(&self, pkg: &str, go: &str) -> String {
        let prefix_len = go.rfind([']', '*']).map_or(0, |at| at + 1);
        let (prefix, name) = go.split_at(prefix_len);
        let prefix = match prefix.split_once("map[").and_then(|(_, rest)| rest.split_once(']')) {
            Some((key, rest)) => {
                format!("map[{}]{rest}", self.reflected(pkg, key))
            }
            None => prefix.replace('*', ""),
        };
        let is_basic = name.chars().next().is_none_or(char::is_lowercase) && !name.contains('.');
        if is_basic {
            return format!("{prefix}{}", if name == "byte" { "uint8" } else { name });
        }
        let package = pkg.rsplit('/').next().unwrap_or(pkg);
        match name.split_once('.') {
            None => format!("{prefix}{package}.{name}"),
            Some(("metav1" | "corev1" | "apiv1" | "batchv1" | "authenticationv1", name)) => {
                format!("{prefix}v1.{name}")
            }
            Some(("authorizationv1", name)) => format!("{prefix}v1.{name}"),
            Some(_) => format!("{prefix}{name}"),
        }
    }
}

/// What a served version needs: no alpha and no beta is on by default, and `metrics.k8s.io` has
/// nothing newer.
fn is_kept(pkg: &str) -> bool {
    let version = pkg.rsplit('/').next().unwrap_or(pkg);
    let stable = !version.contains("alpha") && !version.contains("beta");
    (stable || pkg == "metrics/pkg/apis/metrics/v1beta1")
        && !pkg.contains("custom_metrics")
        && !pkg.contains("external_metrics")
}

/// `core/v1` for `api/core/v1`, `meta/v1` for `apimachinery/pkg/apis/meta/v1`.
fn short(pkg: &str) -> String {
    let mut parts = pkg.rsplit('/');
    let version = parts.next().unwrap_or("");
    let group = parts.next().unwrap_or("");
    format!("{group}/{version}")
}

fn special(pkg: &str, name: &str) -> Option<&'static str> {
    Some(match (short(pkg).as_str(), name) {
        ("api/resource", "Quantity" | "QuantityValue") => "q",
        ("meta/v1", "Time") => "t",
        ("meta/v1", "MicroTime") => "m",
        ("meta/v1", "Duration") => "D",
        ("meta/v1", "FieldsV1") => "F",
        ("util/intstr", "IntOrString") => "o",
        ("pkg/runtime", "RawExtension") => "R",
        ("apiextensions/v1", "JSON") => "J",
        ("apiextensions/v1", "JSONSchemaPropsOrBool") => "B",
        ("apiextensions/v1", "JSONSchemaPropsOrArray") => "A",
        ("apiextensions/v1", "JSONSchemaPropsOrStringArray") => "S",
        _ => return None,
    })
}

/// `P=` patch strategy, `K=` merge key, `L=` list type with its keys, `M=` map type, `D=` default.
fn extras(field: &Value) -> Vec<String> {
    let mut extras = Vec::new();
    if let Some(strategy) = field["patchStrategy"].as_str() {
        extras.push(format!("P={strategy}"));
    }
    if let Some(key) = field["patchMergeKey"].as_str() {
        extras.push(format!("K={key}"));
    }
    let values = |name: &str| {
        let name = name.to_owned();
        markers(field).filter_map(move |m| m.strip_prefix(name.as_str()).map(str::to_owned))
    };
    let list_type = values("+listType=").chain(values("+k8s:listType=")).next();
    if let Some(list_type) = list_type {
        let mut keys: Vec<String> = Vec::new();
        for key in values("+listMapKey=").chain(values("+k8s:listMapKey=")) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        extras.push(format!("L={list_type}:{}", keys.join(",")));
    }
    if let Some(map_type) = values("+mapType=").chain(values("+structType=")).next() {
        extras.push(format!("M={map_type}"));
    }
    if let Some(default) = values("+default=").find(|text| !text.starts_with("ref(")) {
        extras.push(format!("D={default}"));
    }
    extras
}

fn resources(facts: &Path) -> Result<String> {
    let read = |name: &str| -> Result<Value> {
        let path = facts.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    };
    let resources = read("resources.json")?;
    let tables = read("tables.json")?;
    let selectors = read("fieldselectors.json")?;
    let mut out = String::new();
    for group in list(&resources, "groups") {
        let name = text_of(group, "group");
        writeln!(out, "G\t{name}\t{}", text_of(group, "preferredVersion"))?;
        for version in list(group, "versions") {
            let version_name = text_of(version, "version");
            writeln!(out, "V\t{version_name}")?;
            for resource in list(version, "resources") {
                print_resource(resource, &mut out)?;
                let plural = text_of(resource, "name");
                let key = if name.is_empty() {
                    format!("{version_name}/{plural}")
                } else {
                    format!("{name}/{version_name}/{plural}")
                };
                for column in tables[&key].as_array().into_iter().flatten() {
                    let [name, kind, format] =
                        ["name", "type", "format"].map(|key| text_of(column, key));
                    writeln!(out, "C\t{name}\t{kind}\t{format}\t{}", column["priority"])?;
                }
            }
        }
    }
    for kind in list(&selectors, "kinds") {
        print_selectors(kind, &mut out)?;
    }
    Ok(out)
}

fn print_resource(resource: &Value, out: &mut String) -> Result<()> {
    writeln!(
        out,
        "R\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        text_of(resource, "name"),
        text_of(resource, "singularName"),
        text_of(resource, "kind"),
        if resource["namespaced"] == true { "n" } else { "" },
        joined(resource, "verbs"),
        joined(resource, "shortNames"),
        joined(resource, "categories"),
    )?;
    for sub in list(resource, "subresources") {
        let [name, kind, group, version] =
            ["name", "kind", "group", "version"].map(|key| text_of(sub, key));
        writeln!(out, "S\t{name}\t{kind}\t{group}\t{version}\t{}", joined(sub, "verbs"))?;
    }
    Ok(())
}

fn print_selectors(kind: &Value, out: &mut String) -> Result<()> {
    let aliases: Vec<String> = kind["aliases"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(alias, key)| format!("{alias}={}", key.as_str().unwrap_or_default()))
        .collect();
    writeln!(
        out,
        "F\t{}\t{}\t{}\t{}\t{}\t{}",
        text_of(kind, "group"),
        text_of(kind, "version"),
        text_of(kind, "kind"),
        joined(kind, "keys"),
        aliases.join(","),
        text_of(kind, "error"),
    )?;
    Ok(())
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn joined(value: &Value, key: &str) -> String {
    list(value, key).filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn markers(value: &Value) -> impl Iterator<Item = &str> {
    list(value, "markers").filter_map(Value::as_str)
}
