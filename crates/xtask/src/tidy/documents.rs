//! Documents that must stay true.

use std::path::Path;

use anyhow::Context;
use cargo_metadata::Metadata;

const REQUIRED: [&str; 10] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "README.zh-CN.md",
    "docs/conformance.md",
    "docs/glossary.md",
    "docs/limits.md",
    "docs/performance.md",
];

pub(super) fn check(root: &Path, metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let mut findings: Vec<String> = REQUIRED
        .iter()
        .filter(|name| !root.join(name).is_file())
        .map(|name| format!("{name} is missing"))
        .collect();
    if !findings.is_empty() {
        return Ok(findings);
    }
    let architecture =
        std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    for package in metadata.workspace_packages() {
        if !architecture.contains(&format!("`{}`", package.name)) {
            findings.push(format!("ARCHITECTURE.md does not mention crate `{}`", package.name));
        }
    }
    for path in named_paths(&architecture) {
        if !root.join(&path).exists() {
            findings.push(format!("ARCHITECTURE.md names {path}, which does not exist"));
        }
    }
    findings.extend(twins(root)?);
    Ok(findings)
}

/// What stands in backquotes and looks like a path of this repository.
fn named_paths(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| ["crates/", "docs/", ".ci/"].iter().any(|start| code.starts_with(start)))
        .filter(|code| !code.contains(['*', '<', ' ']))
        .map(str::to_owned)
        .collect()
}

/// The two READMEs show the same commands.
fn twins(root: &Path) -> anyhow::Result<Vec<String>> {
    let commands = |name: &str| -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(root.join(name))?;
        Ok(text.split("```").skip(1).step_by(2).map(str::to_owned).collect())
    };
    if commands("README.md")? == commands("README.zh-CN.md")? {
        return Ok(Vec::new());
    }
    Ok(vec!["README.md and README.zh-CN.md show different commands".to_owned()])
}

#[cfg(test)]
mod tests {
    use super::named_paths;

    #[test]
    fn paths_are_found_in_backquotes() {
        let text = "see `crates/a/src/lib.rs` and `cargo xtask`, not `crates/*` or crates/b";
        assert_eq!(named_paths(text), ["crates/a/src/lib.rs"]);
    }
}
