//! `cargo xtask replay`: recorded requests and answers of upstream's API server against ours.
//!
//! The corpus is not part of the repository: a directory with a file of cases per category and the
//! program that sends and compares them. How many cases must pass stands in
//! `docs/conformance.md`; fewer are a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use client::{Credentials, KubeConfig};
use testkit::Host;

use crate::run::{build_ironclad, say, workspace};

const DOCUMENT: &str = "docs/conformance.md";
/// A debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Seconds for one request, and for what becomes true after a while.
const REQUEST_SECONDS: &str = "10";

/// Which cases to replay.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The corpus.
    corpus: PathBuf,
    /// Only these categories.
    category: Vec<String>,
    /// Use the release build.
    #[arg(long)]
    release: bool,
    /// Only cases whose names match.
    #[arg(long, value_name = "REGEX")]
    filter: Option<String>,
    /// Write the numbers into docs/conformance.md instead of comparing with them.
    #[arg(long, conflicts_with = "filter")]
    write: bool,
}

/// What became of a category's cases.
struct Outcome {
    passed: u32,
    failed: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let program = args.corpus.join("replay.py");
    ensure!(program.exists(), "{} is not a corpus: it has no replay.py", args.corpus.display());
    let document = workspace().join(DOCUMENT);
    let text = std::fs::read_to_string(&document).context(DOCUMENT)?;
    let floors = floors(&text);
    let server = Server::start(&build_ironclad(args.release)?)?;
    let mut short = Vec::new();
    let mut outcomes = BTreeMap::new();
    for (category, floor) in &floors {
        if !args.category.is_empty() && !args.category.contains(category) {
            continue;
        }
        let outcome = server.replay(&args.corpus, category, args.filter.as_deref())?;
        let of = outcome.passed + outcome.failed;
        say(&format!("{category}: {} of {of} cases pass", outcome.passed));
        if outcome.passed < *floor && args.filter.is_none() {
            short.push(format!("{category}: {} passed, {floor} did before", outcome.passed));
        }
        outcomes.insert(category.clone(), outcome);
    }
    if args.write {
        return std::fs::write(&document, written(&text, &outcomes)).context(DOCUMENT);
    }
    ensure!(short.is_empty(), "{}", short.join("; "));
    let (passed, failed) = outcomes.values().fold((0, 0), |(passed, failed), outcome| {
        (passed + outcome.passed, failed + outcome.failed)
    });
    say(&format!("replay: {passed} of {} cases pass", passed + failed));
    Ok(())
}

/// An API server alone on a host of its own.
struct Server {
    host: Host,
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn start(ironclad: &Path) -> anyhow::Result<Self> {
        let host = Host::new()?;
        let directory = tempfile::Builder::new().prefix("ironclad-replay-").tempdir()?;
        let kubeconfig = directory.path().join("kubeconfig");
        let log = std::fs::File::create(directory.path().join("log"))?;
        let mut command = testkit::command(ironclad);
        command.arg("apiserver").arg("--data-dir").arg(directory.path().join("data"));
        command.args(["--bind-address", "127.0.0.1", "--secure-port", "6443"]);
        command.args(["--service-cluster-ip-range", "10.96.0.0/16"]);
        command.arg("--write-kubeconfig").arg(&kubeconfig);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = host.run(move || command.spawn())?;
        let mut server = Self { host, child, directory };
        server.wait_for(&kubeconfig)?;
        server.credentials(&kubeconfig)?;
        Ok(server)
    }

    fn wait_for(&mut self, kubeconfig: &Path) -> anyhow::Result<()> {
        let pause = Duration::from_millis(20);
        for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
            // It is written when the server answers.
            if kubeconfig.exists() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.directory.path().join("log"))?;
                bail!("ironclad apiserver ended ({status}):\n{log}");
            }
            pause_for(pause);
        }
        bail!("ironclad apiserver is not ready after {PATIENCE:?}");
    }

    /// The files that the replaying program wants.
    fn credentials(&self, kubeconfig: &Path) -> anyhow::Result<()> {
        let config = KubeConfig::load(kubeconfig)?;
        let Credentials::Certificate { certificate, key } = config.credentials else {
            bail!("the kubeconfig has no certificate");
        };
        for (name, content) in
            [("ca", &config.certificate_authority), ("cert", &certificate), ("key", &key)]
        {
            std::fs::write(self.directory.path().join(name), content)?;
        }
        Ok(())
    }

    fn replay(
        &self,
        corpus: &Path,
        category: &str,
        filter: Option<&str>,
    ) -> anyhow::Result<Outcome> {
        let mut command: Command = testkit::command("python3");
        command.arg(corpus.join("replay.py")).args(["--server", "https://127.0.0.1:6443"]);
        for name in ["ca", "cert", "key"] {
            command.arg(format!("--{name}")).arg(self.directory.path().join(name));
        }
        command.args(["--finalize", "--timeout", REQUEST_SECONDS]);
        if let Some(filter) = filter {
            command.args(["--filter", filter]);
        }
        command.arg(corpus.join(format!("{category}.jsonl")));
        let output = self.host.run(move || command.output()).context("cannot run python3")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(mut outcome) = text.lines().last().and_then(outcome) else {
            bail!("{category}: {text}{}", String::from_utf8_lossy(&output.stderr));
        };
        for line in text.lines().filter(|line| line.starts_with("FAIL ")) {
            if is_older(line) {
                outcome.passed += 1;
                outcome.failed -= 1;
            } else {
                say(line);
            }
        }
        Ok(outcome)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which was reported where it mattered.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// `N passed, N failed`.
fn outcome(line: &str) -> Option<Outcome> {
    let (passed, rest) = line.split_once(" passed, ")?;
    let failed = rest.strip_suffix(" failed")?;
    Some(Outcome { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
}

/// Whether a case fails only because the same moment is longer ago than when it was recorded:
/// `…: "2 (3d ago)" → "2 (4d ago)"`.
fn is_older(line: &str) -> bool {
    let Some((head, answer)) = line.split_once(" → ") else { return false };
    let Some((_, recorded)) = head.split_once(": \"") else { return false };
    let before_age = |text: &str| {
        let (before, age) = text.strip_suffix(" ago)\"")?.split_once(" (")?;
        let is_age = age.chars().all(|c| c.is_ascii_digit() || "ydhms".contains(c));
        is_age.then(|| before.to_owned())
    };
    let answered = answer.strip_prefix('"').and_then(before_age);
    answered.is_some() && before_age(recorded) == answered
}

/// The categories of the document's table, and how many cases pass. A category with a dash is
/// about something that is not built: its cases wait long for what does not come.
fn floors(document: &str) -> Vec<(String, u32)> {
    let measured = rows(document).filter_map(|[name, passed]| Some((name, passed.parse().ok()?)));
    measured.map(|(name, passed)| (name.to_owned(), passed)).collect()
}

fn rows(document: &str) -> impl Iterator<Item = [&str; 2]> {
    document.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let row = [cells.next()?, cells.next()?];
        let of = cells.next()?;
        of.parse::<u32>().is_ok().then_some(row)
    })
}

/// The document with new numbers; the reasons in the last column stay.
fn written(document: &str, outcomes: &BTreeMap<String, Outcome>) -> String {
    let mut lines = Vec::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells.get(1).and_then(|name| outcomes.get(*name)) {
            Some(Outcome { passed, failed }) if cells.len() == 6 => lines.push(format!(
                "| {} | {passed} | {} | {} |",
                cells[1],
                passed + failed,
                cells[4]
            )),
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for, whose clock is real")]
fn pause_for(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# T\n\n| category | pass | of | rest |\n|---|---|---|---|\n| a | 7 | 9 | why |\n| b | – | 2 | no |\n";

    #[test]
    fn the_table_says_how_many_pass() {
        assert_eq!(floors(TABLE), [("a".to_owned(), 7)]);
    }

    #[test]
    fn only_numbers_are_written() {
        let outcomes = [("a".to_owned(), Outcome { passed: 8, failed: 1 })].into();
        assert_eq!(written(TABLE, &outcomes), TABLE.replace("| a | 7 |", "| a | 8 |"));
    }

    #[test]
    fn the_age_of_something_is_no_difference() {
        let line = |answer: &str| {
            format!(
                "FAIL r/podtable/06 step 2 GET /x: body.rows[0].cells[3]: \"2 (3d ago)\" → {answer}"
            )
        };
        assert!(is_older(&line("\"2 (4d2h ago)\"")));
        assert!(!is_older(&line("\"3 (4d ago)\"")));
        assert!(!is_older(&line("\"2\"")));
        assert!(!is_older(&line("\"2 (4d ago)\"; body.kind: \"A\" → \"B\"")));
    }

    #[test]
    fn the_last_line_is_the_outcome() {
        let read = outcome("12 passed, 3 failed").unwrap();
        assert_eq!((read.passed, read.failed), (12, 3));
        assert!(outcome("Traceback").is_none());
    }
}
