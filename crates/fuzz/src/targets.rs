//! One target per decoder.

mod archive;
mod expression;
mod field_set;
mod image_document;
mod json;
mod kubeconfig;
mod patches;
mod protobuf;
mod request;
mod schemas;
mod selector;
mod stream;
mod text;
mod yaml;

use std::time::Duration;

use schema::RuntimeConfig;

/// Something to fuzz. It panics when a decoder does not keep what it promises.
pub struct Target {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that inputs are made of.
    pub dictionary: &'static [&'static str],
    /// One execution.
    pub run: fn(&[u8]),
    /// Memory that may be in use at once: per byte of input,
    pub memory_per_byte: usize,
    /// and beside that.
    pub memory_base: usize,
    /// Processor time that it may take: per byte of input,
    pub nanos_per_byte: u64,
    /// and beside that.
    pub time_base: Duration,
}

impl Target {
    /// With what a decoder may usually take: 64 bytes and 10 µs per byte of input, beside 1 MiB and
    /// 10 ms.
    pub const fn new(name: &'static str, seeds: fn() -> Vec<Vec<u8>>, run: fn(&[u8])) -> Self {
        Self {
            name,
            seeds,
            dictionary: &[],
            run,
            memory_per_byte: 64,
            memory_base: 1 << 20,
            nanos_per_byte: 10_000,
            time_base: Duration::from_millis(10),
        }
    }
}

/// Every target.
pub const ALL: [Target; 15] = [
    json::OBJECT,
    json::UNTYPED,
    yaml::TARGET,
    protobuf::TARGET,
    patches::TARGET,
    field_set::TARGET,
    selector::TARGET,
    text::TARGET,
    expression::TARGET,
    schemas::TARGET,
    stream::TARGET,
    kubeconfig::TARGET,
    archive::TARGET,
    image_document::TARGET,
    request::TARGET,
];

/// Switches on every version of the API; before anything else.
pub fn prepare() {
    if let Ok(config) = RuntimeConfig::parse(&["api/all=true"], |_| true) {
        // Tests of one process prepare several times.
        schema::configure(config).ok();
    }
}

/// The text and what is after the first zero byte.
fn halves(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

/// The table that the first two bytes choose, and the rest.
fn choose(input: &[u8]) -> Option<(meta::GroupVersionKind, &'static schema::Type, &[u8])> {
    static KINDS: std::sync::LazyLock<Vec<(meta::GroupVersionKind, &'static schema::Type)>> =
        std::sync::LazyLock::new(crate::seeds::kinds);
    let (head, rest) = input.split_at_checked(2)?;
    let at = usize::from(u16::from_be_bytes([head[0], head[1]])) % KINDS.len();
    let (gvk, ty) = &KINDS[at];
    Some((gvk.clone(), ty, rest))
}

/// The bytes that choose a table, before an input for it.
fn chosen(at: usize, input: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(at).unwrap_or(0).to_be_bytes().to_vec();
    bytes.extend_from_slice(input);
    bytes
}
