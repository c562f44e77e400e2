//! Kubernetes in one binary.
//!
//! `main` matches the subcommand before it initialises anything: a shim is this program too, one
//! for every pod, and must stay small.
//!
//! Start reading at [`command`]; `command::up` shows how the components are put together.
//!
//! Invariants: only this crate reads flags and the environment, and only here is it decided
//! whether a component speaks to the API in process or over a connection.
//!
//! It contains no logic of a component.
//!
//! Tested by the end-to-end tests of `cargo xtask test`.

#![forbid(unsafe_code)]

mod addons;
mod agent;
mod bench;
mod command;
mod control_plane;
mod host_directories;
mod in_process;
mod node_address;
mod output;
mod supervisor;
mod token_signer;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_else(|| OsString::from("ironclad"));
    let mut args = args.peekable();
    let is_shim = args.peek().is_some_and(|word| word == "shim");
    // The allocator's areas are sparse, and huge pages would make them resident: 12 MB of an idle
    // API server. The setting is inherited, so a shim takes it back before it runs containers.
    // A kernel without it knows no huge pages.
    rustix::thread::disable_transparent_huge_pages(!is_shim).ok();
    if is_shim {
        args.next();
        return runtime::shim::main(args);
    }
    let cli = command::Cli::parse_from(std::iter::once(program).chain(args));
    match command::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
