//! Gathers what the API says about its types and fields from the source of `k8s-openapi`.
//!
//! That package is generated from upstream's OpenAPI document, and its `schemars` implementations
//! carry every description unchanged. They are taken from there when this crate is built, so that
//! no description has to be kept here. What is written to `OUT_DIR`: `descriptions.bin`, blocks of
//! records, each block compressed by itself, and `blocks.rs`, where each block begins.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::ZlibEncoder;

const PACKAGE: &str = "k8s-openapi";
/// The directory of the version that the workspace enables as a feature of the package.
const VERSION: &str = "src/v1_36";
const LOCK: &str = "../../Cargo.lock";
const TABLES: [&str; 2] = ["../schema/generated/types.txt", "../schema/generated/unserved.txt"];
/// Uncompressed; the window of the compression is not larger.
const BLOCK_BYTES: usize = 32 << 10;
/// Between records, and between the parts of a record.
const RECORD: char = '\u{1e}';
const PART: char = '\u{1f}';

/// Scalars have schemas of their own but no tables.
const SCALARS: [&str; 6] = [
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
];

/// The descriptions of a definition: of itself under the empty name, and of its fields.
type Described = BTreeMap<String, String>;

fn main() -> Result<(), Box<dyn Error>> {
    tell("rerun-if-changed=build.rs");
    tell(&format!("rerun-if-changed={LOCK}"));
    let mut tables = String::new();
    for path in TABLES {
        tell(&format!("rerun-if-changed={path}"));
        tables.push_str(&fs::read_to_string(path)?);
    }
    let wanted = wanted(&tables);
    let mut found = BTreeMap::new();
    visit(&package_directory()?.join(VERSION), &wanted, &mut found)?;
    if found.len() < wanted.len() / 2 {
        return Err(format!("{PACKAGE} describes only {} of the types", found.len()).into());
    }
    write_blocks(&found, Path::new(&env::var("OUT_DIR")?))
}

fn tell(instruction: &str) {
    println!("cargo::{instruction}");
}

/// The names of the definitions that the server has tables of.
fn wanted(tables: &str) -> BTreeSet<String> {
    let messages = tables
        .lines()
        .filter_map(|line| line.strip_prefix("T\t")?.split('\t').nth(4))
        .filter_map(|message| message.strip_prefix("k8s.io."));
    let names = messages.map(|message| format!("io.k8s.{}", message.replace('_', "-")));
    names.chain(SCALARS.map(str::to_owned)).collect()
}

/// Where the package lies: where cargo unpacks registries, or in a vendored tree.
///
/// Cargo is asked last, because it answers only when the packages of every platform and of every
/// test are there, which a plain build does not fetch.
fn package_directory() -> Result<PathBuf, Box<dyn Error>> {
    let lock = fs::read_to_string(LOCK)?;
    let version = locked_version(&lock).ok_or("it is not in Cargo.lock")?;
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let unpacked = registries.into_iter().flatten().flatten().find_map(|registry| {
        let package = registry.path().join(format!("{PACKAGE}-{version}"));
        package.join(VERSION).is_dir().then_some(package)
    });
    unpacked.map_or_else(ask_cargo, Ok)
}

/// The version of the package in `Cargo.lock`.
fn locked_version(lock: &str) -> Option<&str> {
    let (_, rest) = lock.split_once(&format!("name = \"{PACKAGE}\"\nversion = \""))?;
    rest.split('"').next()
}

fn ask_cargo() -> Result<PathBuf, Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "a build script has no other way to ask cargo")]
    let mut cargo = std::process::Command::new(env::var_os("CARGO").ok_or("CARGO is not set")?);
    let output = cargo.args(["metadata", "--offline", "--format-version", "1"]).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata failed: {text}").into());
    }
    let metadata = String::from_utf8(output.stdout)?;
    let manifest = manifest_path(&metadata).ok_or("cargo metadata does not know the package")?;
    Ok(manifest.parent().ok_or("the manifest has no directory")?.to_owned())
}

/// The manifest of the package in cargo's JSON. A package's name stands before its version and its
/// manifest; a dependency on it has no version, but a source.
fn manifest_path(metadata: &str) -> Option<PathBuf> {
    const KEY: &str = "\"manifest_path\":\"";
    let package = metadata.find(&format!("{{\"name\":\"{PACKAGE}\",\"version\":"))?;
    let rest = &metadata[package..];
    let rest = &rest[rest.find(KEY)? + KEY.len()..];
    Some(unescape(rest)?.0.into())
}

fn visit(
    directory: &Path,
    wanted: &BTreeSet<String>,
    found: &mut BTreeMap<String, Described>,
) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, wanted, found)?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let Some(head) = text.lines().next() else { continue };
        let Some(name) = head.strip_prefix("// Generated from definition ") else { continue };
        if wanted.contains(name) {
            found.insert(name.to_owned(), scan(&text));
        }
    }
    Ok(())
}

/// Reads the descriptions from the JSON schema in a generated file. It is the last item of the file
/// and indented with care: what belongs to the type itself is three levels deep, the fields are
/// four, and what belongs to them five.
fn scan(text: &str) -> Described {
    const FIELD: usize = 16;
    const INSERTED: &str = "schema_obj.ensure_object().insert(\"description\".into(), \"";
    let mut described = Described::new();
    let mut field = String::new();
    let schema = text.find("fn json_schema(").map_or("", |at| &text[at..]);
    for line in schema.lines() {
        let code = line.trim_start_matches(' ');
        let depth = line.len() - code.len();
        let literal = code.strip_prefix("\"description\": \"").or(code.strip_prefix(INSERTED));
        match (literal, code.strip_prefix('"').and_then(unescape)) {
            (Some(literal), _) if depth < FIELD => put(&mut described, "", literal),
            (Some(literal), _) if depth == FIELD + 4 => put(&mut described, &field, literal),
            (None, Some((name, _))) if depth == FIELD => field = name,
            _ => {}
        }
    }
    described
}

fn put(described: &mut Described, field: &str, literal: &str) {
    if let Some((text, _)) = unescape(literal) {
        described.insert(field.to_owned(), text);
    }
}

/// The string literal whose opening quote has been read, and what follows its closing one. JSON's
/// literals and Rust's have the escapes in common that occur here.
fn unescape(literal: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = literal.chars();
    loop {
        match chars.next()? {
            '"' => return Some((out, chars.as_str())),
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                same @ ('"' | '\\' | '\'' | '/') => same,
                _ => return None,
            }),
            other => out.push(other),
        }
    }
}

fn write_blocks(found: &BTreeMap<String, Described>, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut packed: Vec<u8> = Vec::new();
    let mut index = String::from("&[\n");
    let mut block = String::new();
    let mut names = found.iter().peekable();
    let mut first = None;
    while let Some((name, described)) = names.next() {
        first.get_or_insert(name);
        block.push_str(name);
        for (field, text) in described {
            if text.contains([RECORD, PART]) {
                return Err(format!("{name} has separators in its descriptions").into());
            }
            write!(block, "{PART}{field}{PART}{text}")?;
        }
        block.push(RECORD);
        if block.len() < BLOCK_BYTES && names.peek().is_some() {
            continue;
        }
        let start = packed.len();
        let mut encoder = ZlibEncoder::new(&mut packed, Compression::best());
        encoder.write_all(block.as_bytes())?;
        encoder.finish()?;
        writeln!(index, "    ({:?}, {start}..{}),", first.unwrap_or(name), packed.len())?;
        block.clear();
        first = None;
    }
    index.push_str("]\n");
    fs::write(out.join("descriptions.bin"), packed)?;
    fs::write(out.join("blocks.rs"), index)?;
    Ok(())
}
