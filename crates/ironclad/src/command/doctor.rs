//! `ironclad doctor`

use setup::doctor::{Level, examine};

use crate::output;

/// Prints what was found; fails when a node cannot run here.
pub(super) fn run() -> anyhow::Result<()> {
    let findings = examine();
    let mut rows = vec![["CHECK", "RESULT", "DETAIL", "REMEDY"].map(str::to_owned).to_vec()];
    for finding in &findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Failure => "FAILED",
        };
        let cells = [finding.name, level, &finding.detail, finding.remedy];
        rows.push(cells.map(str::to_owned).to_vec());
    }
    output::table(&rows);
    let failed = findings.iter().filter(|finding| finding.level == Level::Failure).count();
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", findings.len());
    Ok(())
}

/// Fails with the first thing that is missing, and what to do about it.
pub(super) fn require() -> anyhow::Result<()> {
    match examine().into_iter().find(|finding| finding.level == Level::Failure) {
        None => Ok(()),
        Some(finding) => {
            anyhow::bail!("{}: {}; {}", finding.name, finding.detail, finding.remedy)
        }
    }
}
