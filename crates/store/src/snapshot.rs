//! The whole index in one file, after which older segments can go.
//!
//! ```text
//! snapshot = magic  revision:u64le  count:u64le  entry*  crc32c(all before):u32le
//! entry    = create:u64le  mod:u64le  version:u64le  key length:u32le  value length:u32le  key  value
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::api::{KeyValue, Revision};
use crate::index::Index;
use crate::log::sync_directory;

const MAGIC: [u8; 8] = *b"ironsnp\x01";
const ENTRY_HEADER: usize = 32;

pub(crate) fn path(directory: &Path, revision: Revision) -> PathBuf {
    directory.join(format!("{:020}.snapshot", revision.0))
}

/// Writes the index; when this returns the file is durable under its final name.
pub(crate) fn write(directory: &Path, index: &Index) -> io::Result<()> {
    let temporary = directory.join("snapshot.tmp");
    let written = write_file(&temporary, index)
        .and_then(|()| fs::rename(&temporary, path(directory, index.revision)))
        .and_then(|()| sync_directory(directory));
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Reads an index back; `None` when the file is not a whole snapshot.
pub(crate) fn read(path: &Path) -> io::Result<Option<Index>> {
    Ok(decode(Bytes::from(fs::read(path)?)))
}

fn write_file(path: &Path, index: &Index) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut out = Checksummed { out: BufWriter::with_capacity(1 << 20, file), crc: 0 };
    out.put(&MAGIC)?;
    out.put(&index.revision.0.to_le_bytes())?;
    out.put(&(index.map.len() as u64).to_le_bytes())?;
    for kv in index.map.values() {
        let mut header = [0; ENTRY_HEADER];
        header[..8].copy_from_slice(&kv.create_revision.0.to_le_bytes());
        header[8..16].copy_from_slice(&kv.mod_revision.0.to_le_bytes());
        header[16..24].copy_from_slice(&kv.version.to_le_bytes());
        header[24..28].copy_from_slice(&length(&kv.key)?.to_le_bytes());
        header[28..].copy_from_slice(&length(&kv.value)?.to_le_bytes());
        out.put(&header)?;
        out.put(&kv.key)?;
        out.put(&kv.value)?;
    }
    let crc = out.crc;
    out.put(&crc.to_le_bytes())?;
    out.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn length(bytes: &Bytes) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(io::Error::other)
}

struct Checksummed {
    out: BufWriter<File>,
    crc: u32,
}

impl Checksummed {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.out.write_all(bytes)
    }
}

fn decode(mut data: Bytes) -> Option<Index> {
    if data.len() < 28 || !data.starts_with(&MAGIC) {
        return None;
    }
    let crc = data.split_off(data.len() - 4).get_u32_le();
    if crc32c::crc32c(&data) != crc {
        return None;
    }
    data.advance(MAGIC.len());
    let mut index = Index::new();
    index.revision = Revision(data.get_u64_le());
    let count = data.get_u64_le();
    for _ in 0..count {
        if data.len() < ENTRY_HEADER {
            return None;
        }
        let create_revision = Revision(data.get_u64_le());
        let mod_revision = Revision(data.get_u64_le());
        let version = data.get_u64_le();
        let key_length = usize::try_from(data.get_u32_le()).ok()?;
        let value_length = usize::try_from(data.get_u32_le()).ok()?;
        if data.len() < key_length.checked_add(value_length)? {
            return None;
        }
        // Copied, so that one small value does not keep the whole file in memory.
        let key = Bytes::copy_from_slice(&data.split_to(key_length));
        let value = Bytes::copy_from_slice(&data.split_to(value_length));
        let kv = KeyValue { key: key.clone(), value, create_revision, mod_revision, version };
        index.map.insert(key, Arc::new(kv));
    }
    data.is_empty().then_some(index)
}
