//! Unpacks one layer into a directory that overlayfs can use.
//!
//! The directory belongs to this process alone while it is filled, so paths can be resolved step
//! by step: every symbolic link met on the way is followed inside the layer, never outside.

mod allowance;
mod writing;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use tar::{Archive, Entry, EntryType};

use crate::ImageError;
use crate::layer::{is_whiteout, look_up};
use crate::space::{LOOK_EVERY_FILES, Space};
use writing::Writing;

pub(crate) use allowance::Allowance;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// The kernel's own limit on links followed in one path.
const LINKS_MAX: usize = 40;
/// The kernel's own limit on a path, and how much of a longer one is told.
const PATH_BYTES_MAX: usize = 4096;
const PATH_BYTES_SHOWN: usize = 64;

/// What an archive may hold at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files of a layer, and of all files of an archive.
    pub bytes: u64,
    /// Entries of a layer, and of an archive.
    pub entries: u64,
}

impl Default for Limits {
    /// Several times what the largest images in use hold.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000 }
    }
}

/// Unpacks the tar stream `layer` into `root`, which is empty. `parents` are the directories of
/// the layers below, the uppermost first.
pub(crate) fn unpack(
    layer: impl Read,
    root: &Path,
    parents: &[PathBuf],
    limits: Limits,
    space: &Space,
) -> Result<(), ImageError> {
    let writing = Writing::new(space);
    let mut unpacker =
        Unpacker { root, parents, directories: BTreeMap::new(), last: None, writing };
    let allowance = Allowance::default();
    let mut archive = Archive::new(allowance.limit(layer));
    let mut stream = archive.entries().map_err(ImageError::Archive)?;
    let (mut entries, mut bytes) = (0u64, 0u64);
    loop {
        allowance.headers();
        let Some(entry) = stream.next() else { break };
        let mut entry = entry.map_err(ImageError::Archive)?;
        allowance.contents();
        entries += 1;
        bytes = bytes.saturating_add(entry.size());
        if entries > limits.entries {
            return Err(ImageError::Limit { what: "number of files", limit: limits.entries });
        }
        if bytes > limits.bytes {
            return Err(ImageError::Limit { what: "size of layer", limit: limits.bytes });
        }
        if entries % LOOK_EVERY_FILES == 0 {
            space.require(0)?;
        }
        unpacker.apply(&mut entry)?;
        // What nobody wanted to read must not count for the headers of the next one.
        io::copy(&mut entry, &mut io::sink()).map_err(ImageError::Archive)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    root: &'a Path,
    parents: &'a [PathBuf],
    /// Times of directories, set when nothing is put into them any more.
    directories: BTreeMap<PathBuf, Attributes>,
    /// The directory of the last entry as it was named, and as it was found: most files follow
    /// others of the same one.
    last: Option<(PathBuf, PathBuf)>,
    writing: Writing<'a>,
}

/// What an entry says about its file besides its contents.
#[derive(Clone, Debug, Default)]
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Unpacker<'_> {
    fn apply<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), ImageError> {
        let raw = entry.path_bytes().into_owned();
        let Some(path) = clean(&raw)? else { return self.apply_root(entry) };
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (self.directory(parent)?, name.to_owned()),
            _ => return Err(bad(&raw, "has no name")),
        };
        if name.as_bytes() == WHITEOUT_OPAQUE {
            return set_opaque(&self.root.join(&parent));
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            return self.whiteout(&parent, hidden, &raw);
        }
        let at = parent.join(&name);
        let attributes = attributes(entry)?;
        self.make_room(&at, entry.header().entry_type())?;
        self.create(entry, &at, &raw, attributes)
    }

    /// The entry of the root directory itself.
    fn apply_root<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), ImageError> {
        if entry.header().entry_type() == EntryType::Directory {
            let attributes = attributes(entry)?;
            set_attributes(self.root, &attributes, EntryType::Directory)?;
        }
        Ok(())
    }

    fn whiteout(&self, parent: &Path, hidden: &[u8], raw: &[u8]) -> Result<(), ImageError> {
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(bad(raw, "hides no file"));
        }
        let at = self.root.join(parent).join(OsStr::from_bytes(hidden));
        if let Ok(metadata) = fs::symlink_metadata(&at) {
            // The same layer both adds and hides it: what the layer adds wins over what is below.
            return if metadata.is_dir() { set_opaque(&at) } else { Ok(()) };
        }
        rustix::fs::mknodat(CWD, &at, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| ImageError::io("hide", &at)(e.into()))
    }

    /// Removes what an earlier entry of the same layer put at `at`.
    fn make_room(&mut self, at: &Path, kind: EntryType) -> Result<(), ImageError> {
        let full = self.root.join(at);
        let Ok(metadata) = fs::symlink_metadata(&full) else { return Ok(()) };
        // It may have been on the way to the last directory.
        self.last = None;
        if kind == EntryType::Directory && !metadata.is_dir() {
            return replace_by_directory(&full);
        }
        if metadata.is_dir() {
            if kind == EntryType::Directory {
                return Ok(());
            }
            self.directories.retain(|path, _| !path.starts_with(at));
            return fs::remove_dir_all(&full).map_err(ImageError::io("replace", &full));
        }
        fs::remove_file(&full).map_err(ImageError::io("replace", &full))
    }

    fn create<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        at: &Path,
        raw: &[u8],
        attributes: Attributes,
    ) -> Result<(), ImageError> {
        let full = self.root.join(at);
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Directory => {
                if !full.is_dir() {
                    fs::create_dir(&full).map_err(ImageError::io("create", &full))?;
                }
                set_attributes(&full, &attributes, kind)?;
                self.directories.insert(at.to_path_buf(), attributes);
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = create_file(&full)?;
                self.writing.write(entry, &mut file, &full, kind == EntryType::GNUSparse)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| bad(raw, "has no target"))?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), &full)
                    .map_err(ImageError::io("link", &full))?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| bad(raw, "has no target"))?;
                // A second name has the attributes of the first.
                return self.hard_link(&target, &full, raw);
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => make_node(entry, &full, kind)?,
            // Headers that speak of the following entry; the reader has applied them.
            EntryType::XGlobalHeader | EntryType::XHeader => return Ok(()),
            _ => return Err(bad(raw, "is of an unknown kind")),
        }
        set_attributes(&full, &attributes, kind)?;
        set_mtime(&full, attributes.mtime)
    }

    fn hard_link(&mut self, target: &[u8], full: &Path, raw: &[u8]) -> Result<(), ImageError> {
        let target = clean(target)?.ok_or_else(|| bad(raw, "links to the root"))?;
        let (parent, name) = match (target.parent(), target.file_name()) {
            (Some(parent), Some(name)) => (self.directory(parent)?, name),
            _ => return Err(bad(raw, "has no target")),
        };
        let source = self.root.join(&parent).join(name);
        match fs::hard_link(&source, full) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map_err(ImageError::io("link", full)),
        }
        // The first name is in a layer below: its file is copied up, under both names.
        let (below, metadata) = look_up(self.parents, &parent.join(name))
            .filter(|(_, metadata)| metadata.is_file())
            .ok_or_else(|| bad(raw, "links to a file that does not exist"))?;
        fs::copy(&below, &source).map_err(ImageError::io("copy", &source))?;
        copy_attributes(&metadata, &source)?;
        fs::hard_link(&source, full).map_err(ImageError::io("link", full))
    }

    /// Resolves a directory inside the layer, making what is missing after the layers below.
    fn directory(&mut self, path: &Path) -> Result<PathBuf, ImageError> {
        if let Some((named, found)) = &self.last
            && named == path
        {
            return Ok(found.clone());
        }
        let found = self.resolve(path)?;
        self.last = Some((path.to_path_buf(), found.clone()));
        Ok(found)
    }

    fn resolve(&self, path: &Path) -> Result<PathBuf, ImageError> {
        let mut at = PathBuf::new();
        let mut rest: Vec<PathBuf> = parts(path);
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part.as_os_str() == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let full = self.root.join(&next);
            let found = match fs::symlink_metadata(&full) {
                Ok(metadata) if metadata.is_dir() => {
                    at = next;
                    continue;
                }
                Ok(metadata) => Some((full.clone(), metadata)),
                Err(_) => look_up(self.parents, &next),
            };
            match found {
                Some((place, metadata)) if metadata.is_symlink() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(bad(path.as_os_str().as_bytes(), "has too many links"));
                    }
                    let target = fs::read_link(&place).map_err(ImageError::io("read", &place))?;
                    if target.is_absolute() {
                        at = PathBuf::new();
                    }
                    rest.extend(parts(&target));
                }
                Some((_, metadata)) if full.is_dir() || metadata.is_dir() => {
                    self.ensure_directory(&full, Some(&metadata))?;
                    at = next;
                }
                _ => {
                    self.ensure_directory(&full, None)?;
                    at = next;
                }
            }
        }
        Ok(at)
    }

    fn ensure_directory(&self, full: &Path, like: Option<&fs::Metadata>) -> Result<(), ImageError> {
        match fs::create_dir(full) {
            Ok(()) => match like {
                Some(metadata) => copy_attributes(metadata, full),
                None => fs::set_permissions(full, fs::Permissions::from_mode(0o755))
                    .map_err(ImageError::io("create", full)),
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if full.is_dir() {
                    return Ok(());
                }
                replace_by_directory(full)
            }
            Err(error) => Err(ImageError::io("create", full)(error)),
        }
    }

    fn finish(self) -> Result<(), ImageError> {
        // Children first: setting a child's time does not touch the parent's.
        for (path, attributes) in self.directories.iter().rev() {
            let full = self.root.join(path);
            if full.is_dir() {
                set_mtime(&full, attributes.mtime)?;
            }
        }
        Ok(())
    }
}

/// The named parts of a path, last first, so that they can be popped.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = path
        .components()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| PathBuf::from(c.as_os_str()))
        .collect();
    parts.reverse();
    parts
}

/// The path of an entry relative to the root; `None` is the root itself.
fn clean(raw: &[u8]) -> Result<Option<PathBuf>, ImageError> {
    if raw.len() > PATH_BYTES_MAX {
        return Err(bad(&raw[..PATH_BYTES_SHOWN], "is longer than a path can be"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(bad(raw, "leads out of the layer"));
            }
        }
    }
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

fn bad(raw: &[u8], problem: &'static str) -> ImageError {
    ImageError::Entry { path: String::from_utf8_lossy(raw).into_owned(), problem }
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> Result<Attributes, ImageError> {
    let number = |field: &[u8], value: io::Result<u64>| {
        // Some writers leave the fields of root empty.
        if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
            return Ok(0);
        }
        value.and_then(|value| u32::try_from(value).map_err(io::Error::other))
    };
    let header = entry.header();
    let fields = header.as_old();
    let mut attributes = Attributes {
        uid: number(&fields.uid, header.uid()).map_err(ImageError::Archive)?,
        gid: number(&fields.gid, header.gid()).map_err(ImageError::Archive)?,
        mode: header.mode().map_err(ImageError::Archive)? & 0o7777,
        mtime: i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0),
        xattrs: Vec::new(),
    };
    let Some(extensions) = entry.pax_extensions().map_err(ImageError::Archive)? else {
        return Ok(attributes);
    };
    for extension in extensions {
        let extension = extension.map_err(ImageError::Archive)?;
        let Ok(key) = extension.key() else { continue };
        let text = extension.value().unwrap_or_default();
        match key {
            "uid" => attributes.uid = text.parse().unwrap_or(attributes.uid),
            "gid" => attributes.gid = text.parse().unwrap_or(attributes.gid),
            "mtime" => {
                let seconds = text.split('.').next().unwrap_or_default();
                attributes.mtime = seconds.parse().unwrap_or(attributes.mtime);
            }
            _ => {
                // What steers overlayfs or a security module is not an image's to set.
                let name = key.strip_prefix("SCHILY.xattr.").unwrap_or_default();
                let is_overlays = name.starts_with("user.overlay.");
                if name == "security.capability" || (name.starts_with("user.") && !is_overlays) {
                    let value = extension.value_bytes().to_vec();
                    attributes.xattrs.push((name.to_owned(), value));
                }
            }
        }
    }
    Ok(attributes)
}

fn create_file(full: &Path) -> Result<File, ImageError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(full)
        .map_err(ImageError::io("create", full))
}

/// What an earlier entry put there is no directory. Where that hid what is below, it stays hidden.
fn replace_by_directory(full: &Path) -> Result<(), ImageError> {
    let metadata = fs::symlink_metadata(full).map_err(ImageError::io("replace", full))?;
    fs::remove_file(full).map_err(ImageError::io("replace", full))?;
    fs::create_dir(full).map_err(ImageError::io("create", full))?;
    if is_whiteout(&metadata) { set_opaque(full) } else { Ok(()) }
}

fn set_opaque(directory: &Path) -> Result<(), ImageError> {
    set_xattr(directory, "trusted.overlay.opaque", b"y")
}

fn make_node<R: Read>(
    entry: &Entry<'_, R>,
    full: &Path,
    kind: EntryType,
) -> Result<(), ImageError> {
    let header = entry.header();
    let part = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
    let device = rustix::fs::makedev(part(header.device_major()), part(header.device_minor()));
    let (kind, device) = match kind {
        EntryType::Char => (FileType::CharacterDevice, device),
        EntryType::Block => (FileType::BlockDevice, device),
        _ => (FileType::Fifo, 0),
    };
    rustix::fs::mknodat(CWD, full, kind, Mode::from_raw_mode(0o600), device)
        .map_err(|e| ImageError::io("create", full)(e.into()))
}

fn set_attributes(full: &Path, wanted: &Attributes, kind: EntryType) -> Result<(), ImageError> {
    std::os::unix::fs::lchown(full, Some(wanted.uid), Some(wanted.gid))
        .map_err(ImageError::io("change the owner of", full))?;
    if kind != EntryType::Symlink {
        // After the owner, because changing that clears the set-user-id bit.
        fs::set_permissions(full, fs::Permissions::from_mode(wanted.mode))
            .map_err(ImageError::io("change the mode of", full))?;
    }
    for (name, value) in &wanted.xattrs {
        set_xattr(full, name, value)?;
    }
    Ok(())
}

fn copy_attributes(from: &fs::Metadata, to: &Path) -> Result<(), ImageError> {
    let wanted = Attributes {
        uid: from.uid(),
        gid: from.gid(),
        mode: from.mode() & 0o7777,
        ..Attributes::default()
    };
    set_attributes(to, &wanted, EntryType::Directory)
}

fn set_xattr(full: &Path, name: &str, value: &[u8]) -> Result<(), ImageError> {
    rustix::fs::lsetxattr(full, name, value, XattrFlags::empty())
        .map_err(|e| ImageError::io("set an attribute of", full)(e.into()))
}

fn set_mtime(full: &Path, seconds: i64) -> Result<(), ImageError> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, full, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| ImageError::io("set the time of", full)(e.into()))
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
