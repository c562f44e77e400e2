//! Programs that tests and tasks run.

use std::ffi::OsStr;
use std::process::Command;

/// A program to be run. The product itself runs none.
#[expect(clippy::disallowed_methods, reason = "this is the wrapper that the ban points to")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}
