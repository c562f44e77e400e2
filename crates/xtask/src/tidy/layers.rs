//! Dependencies point down: `layers.toml` against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata};
use serde::Deserialize;

#[derive(Deserialize)]
struct Layers {
    layers: BTreeMap<String, Vec<String>>,
    below: BTreeMap<String, Vec<String>>,
    #[serde(rename = "same-layer")]
    same_layer: BTreeMap<String, String>,
}

/// A crate and one of ours that it uses outside of tests.
type Edge = (String, String);

pub(super) fn check(root: &Path, metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let path = root.join("layers.toml");
    let text = std::fs::read_to_string(&path).context("layers.toml")?;
    let layers: Layers = toml::from_str(&text).context("layers.toml")?;
    let packages = metadata.workspace_packages();
    let ours: BTreeSet<String> = packages.iter().map(|p| p.name.to_string()).collect();
    let mut edges = BTreeSet::new();
    for package in &packages {
        for dependency in &package.dependencies {
            if ours.contains(&dependency.name) && dependency.kind == DependencyKind::Normal {
                edges.insert((package.name.to_string(), dependency.name.clone()));
            }
        }
    }
    let mut findings = judge(&layers, &ours, &edges);
    for package in &packages {
        let manifest = std::fs::read_to_string(&package.manifest_path)?;
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.push(format!("crate {} does not inherit the workspace's lints", package.name));
        }
    }
    Ok(findings)
}

fn judge(layers: &Layers, ours: &BTreeSet<String>, edges: &BTreeSet<Edge>) -> Vec<String> {
    let mut findings = Vec::new();
    let layer_of = |name: &str| {
        let has = |(_, crates): &(&String, &Vec<String>)| crates.iter().any(|c| c == name);
        layers.layers.iter().find(has).map(|(layer, _)| layer.as_str())
    };
    for name in ours.iter().filter(|name| layer_of(name).is_none()) {
        findings.push(format!("crate {name} has no layer in layers.toml"));
    }
    for name in layers.layers.values().flatten().filter(|name| !ours.contains(*name)) {
        findings.push(format!("layers.toml names crate {name}, which does not exist"));
    }
    let mut used = BTreeSet::new();
    for (from, to) in edges {
        let (Some(upper), Some(lower)) = (layer_of(from), layer_of(to)) else { continue };
        let edge = format!("{from} -> {to}");
        if upper == lower {
            if !layers.same_layer.contains_key(&edge) {
                findings
                    .push(format!("{edge}: within layer {upper}, without a reason in layers.toml"));
            }
            used.insert(edge);
        } else if !layers.below.get(upper).is_some_and(|below| below.iter().any(|l| l == lower)) {
            findings.push(format!("{edge}: layer {upper} may not know layer {lower}"));
        }
    }
    for edge in layers.same_layer.keys().filter(|edge| !used.contains(*edge)) {
        findings.push(format!("layers.toml excuses {edge}, which is not used"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[(&str, &str)]) -> Vec<String> {
        let layers: Layers = toml::from_str(
            r#"
            [layers]
            base = ["a"]
            top = ["b", "c"]
            [below]
            base = []
            top = ["base"]
            [same-layer]
            "b -> c" = "because"
            "#,
        )
        .unwrap();
        let ours = ["a", "b", "c"].map(str::to_owned).into();
        let edges = edges.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        judge(&layers, &ours, &edges)
    }

    #[test]
    fn dependencies_point_down() {
        assert!(check(&[("b", "a"), ("b", "c")]).is_empty());
        assert_eq!(check(&[("a", "b"), ("b", "c")]), ["a -> b: layer base may not know layer top"]);
    }

    #[test]
    fn edges_within_a_layer_need_a_reason_and_reasons_an_edge() {
        assert_eq!(
            check(&[("c", "b")]),
            [
                "c -> b: within layer top, without a reason in layers.toml",
                "layers.toml excuses b -> c, which is not used"
            ]
        );
    }
}
