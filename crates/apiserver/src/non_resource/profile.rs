//! Profiles of the running process under `/debug/pprof`, in pprof's format.
//!
//! There is no sampling of stacks: what is measured is the time each group of threads ran and the
//! time it waited for a processor, as the kernel counts them. Threads are grouped by name. The paths
//! need their own permission, as every path that is not a resource does, and are not there at all
//! without `--profiling`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Response, StatusCode};
use meta::Status;

use super::no_such_path;
use crate::context::RequestContext;
use crate::errors;
use crate::render::respond;
use connection::Body;

/// What is served.
pub(super) const PATHS: [&str; 3] =
    ["/debug/pprof", "/debug/pprof/cmdline", "/debug/pprof/profile"];

const PROFILE: &str = "/debug/pprof/profile";
/// Upstream's default.
const SECONDS: u64 = 30;
const SECONDS_MAX: u64 = 300;

/// Nanoseconds since the threads of a name began: running, and waiting for a processor.
type Times = BTreeMap<String, [u64; 2]>;

pub(super) fn is_long_running(path: &str) -> bool {
    path == PROFILE
}

/// Answers the paths of profiles; `None` when the path is none of them.
pub(super) async fn serve(
    ctx: &RequestContext,
    path: &str,
) -> Result<Option<Response<Body>>, Status> {
    if !path.starts_with("/debug/pprof") {
        return Ok(None);
    }
    if !ctx.server.config.profiling {
        return Ok(Some(no_such_path()));
    }
    let plain = |text: Vec<u8>| respond(StatusCode::OK, "text/plain; charset=utf-8", text.into());
    let answer = match path {
        "/debug/pprof" => plain(format!("{}\n", PATHS.join("\n")).into_bytes()),
        "/debug/pprof/cmdline" => {
            let line = fs::read("/proc/self/cmdline").map_err(errors::internal)?;
            plain(line.strip_suffix(b"\0").unwrap_or(&line).to_vec())
        }
        PROFILE => respond(StatusCode::OK, "application/octet-stream", profile(ctx).await?.into()),
        _ => no_such_path(),
    };
    Ok(Some(answer))
}

async fn profile(ctx: &RequestContext) -> Result<Vec<u8>, Status> {
    let seconds = match ctx.query.non_empty("seconds") {
        None => SECONDS,
        Some(text) => text.parse().unwrap_or(SECONDS).clamp(1, SECONDS_MAX),
    };
    let before = times().map_err(errors::internal)?;
    ctx.server.clock.sleep(Duration::from_secs(seconds)).await;
    let mut spent = times().map_err(errors::internal)?;
    for (name, times) in &mut spent {
        let since = before.get(name).copied().unwrap_or_default();
        // Threads that have ended take their share with them.
        *times = [0, 1].map(|at| times[at].saturating_sub(since[at]));
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    io::Write::write_all(&mut encoder, &encode(&spent, seconds))
        .and_then(|()| encoder.finish())
        .map_err(errors::internal)
}

fn times() -> io::Result<Times> {
    let mut times = Times::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        let (Ok(name), Ok(text)) =
            (fs::read_to_string(thread.join("comm")), fs::read_to_string(thread.join("schedstat")))
        else {
            // It has ended since the directory was read.
            continue;
        };
        let mut numbers = text.split(' ').map(|number| number.trim().parse().unwrap_or(0));
        let sum = times.entry(name.trim_end().to_owned()).or_default();
        sum.iter_mut().for_each(|sum| *sum += numbers.next().unwrap_or(0));
    }
    Ok(times)
}

/// `Profile` of pprof: one sample and one location for each name.
fn encode(times: &Times, seconds: u64) -> Vec<u8> {
    let mut strings = vec!["", "cpu", "nanoseconds", "wait"];
    strings.extend(times.keys().map(String::as_str));
    let mut out = Vec::new();
    for kind in [1, 3] {
        field(&mut out, 1, &message(&[(1, kind), (2, 2)]));
    }
    for (at, values) in times.values().enumerate() {
        let id = at as u64 + 1;
        field(&mut out, 2, &message(&[(1, id), (2, values[0]), (2, values[1])]));
        let mut location = message(&[(1, id)]);
        field(&mut location, 4, &message(&[(1, id)]));
        field(&mut out, 4, &location);
        // The names follow the four strings above.
        field(&mut out, 5, &message(&[(1, id), (2, id + 3)]));
    }
    strings.iter().for_each(|text| field(&mut out, 6, text.as_bytes()));
    out.extend(message(&[(10, seconds * 1_000_000_000)]));
    out
}

fn message(numbers: &[(u64, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, value) in numbers {
        varint(&mut out, number << 3);
        varint(&mut out, *value);
    }
    out
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_of_this_process_have_run() {
        let times = times().unwrap();
        assert!(times.values().any(|[running, _]| *running > 0), "{times:?}");
    }

    #[test]
    fn a_profile_names_its_threads() {
        let times = Times::from([("worker".to_owned(), [300, 5])]);
        let bytes = encode(&times, 1);
        // Two kinds of value, then the sample: location 1 with 300 and 5.
        assert_eq!(bytes[..12], [10, 4, 8, 1, 16, 2, 10, 4, 8, 3, 16, 2]);
        assert_eq!(bytes[12..21], [18, 7, 8, 1, 16, 0xac, 2, 16, 5]);
        assert!(bytes.windows(6).any(|window| window == b"worker"));
    }
}
