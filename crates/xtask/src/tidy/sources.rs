//! Source files: heads, sizes, names, and what must not be in them.

use std::path::{Path, PathBuf};

/// Past this only a flat table or one state machine reads well.
const LINES_MAX: usize = 1000;

/// Text that must not be in a source file, and why. Written in two parts, so that this file is
/// not found itself.
const FORBIDDEN: [(&str, &str, &str); 6] = [
    ("#[ign", "ore", "assert what holds today and name the defect"),
    ("#[should", "_panic", "assert on the outcome instead"),
    ("FIX", "ME", "finish it, or write TODO(#issue): sentence"),
    ("#![al", "low(", "use #[expect(…, reason = …)] on the smallest item"),
    ("#[al", "low(", "use #[expect(…, reason = …)]"),
    ("/work", "/", "no paths of one machine"),
];

const BANNED_NAMES: [&str; 4] = ["mod.rs", "utils.rs", "common.rs", "helpers.rs"];

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut files = Vec::new();
    collect(&root.join("crates"), &mut files)?;
    files.sort();
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
        let text = std::fs::read_to_string(file)?;
        findings.extend(judge(&name, &text).into_iter().map(|what| format!("{name}: {what}")));
        findings.extend(unlisted_tests(file, &text)?);
    }
    Ok(findings)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn judge(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let is_generated = name.contains("/generated/");
    if !text.starts_with("//!") && !is_generated {
        findings.push("does not open with //!".to_owned());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !is_generated && !name.contains("/tests") {
        findings.push(format!("has {lines} lines, more than {LINES_MAX}"));
    }
    let file = name.rsplit('/').next().unwrap_or(name);
    if BANNED_NAMES.contains(&file) {
        findings.push("name it for what it is about".to_owned());
    }
    for (first, second, instead) in FORBIDDEN {
        if text.contains(&format!("{first}{second}")) {
            findings.push(format!("contains {first}{second}: {instead}"));
        }
    }
    findings
}

/// Files beside a `tests/*/main.rs` that it does not list: their tests would never run.
fn unlisted_tests(file: &Path, text: &str) -> anyhow::Result<Vec<String>> {
    let is_runner =
        file.ends_with("main.rs") && file.components().any(|c| c.as_os_str() == "tests");
    let Some(directory) = file.parent().filter(|_| is_runner) else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_module = path.extension().is_some_and(|extension| extension == "rs");
        if is_module && stem != "main" && !text.contains(&format!("mod {stem};")) {
            findings.push(format!("{} is not listed in main.rs", path.display()));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn heads_sizes_and_names_are_checked() {
        assert!(judge("crates/a/src/b.rs", "//! What it is.\n").is_empty());
        assert_eq!(judge("crates/a/src/b.rs", "fn a() {}\n"), ["does not open with //!"]);
        assert_eq!(judge("crates/a/src/mod.rs", "//! A.\n"), ["name it for what it is about"]);
        let long = format!("//! A.\n{}", "\n".repeat(1000));
        assert_eq!(judge("crates/a/src/b.rs", &long), ["has 1001 lines, more than 1000"]);
        assert!(judge("crates/a/tests/b.rs", &long).is_empty());
    }

    #[test]
    fn what_must_not_land_is_found() {
        let text = format!("//! A.\n// {}{}: later\n", "FIX", "ME");
        assert_eq!(judge("crates/a/src/b.rs", &text).len(), 1);
    }
}
