//! Layers in their directories, and the files of lower layers as seen through upper ones.

use std::fs::{self, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::Digest;

/// The directory name of a layer on top of others: it depends on all of them.
pub(crate) fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => diff_id.clone(),
        Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
    }
}

/// Undoes whatever compression the bytes begin like.
pub(crate) fn decompress<'a>(
    reader: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut reader = BufReader::with_capacity(128 * 1024, reader);
    let start = reader.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        _ => Box::new(reader),
    })
}

/// What the layers below show at `path`, the uppermost first; whiteouts hide what is below.
pub(crate) fn look_up(parents: &[PathBuf], path: &Path) -> Option<(PathBuf, Metadata)> {
    for parent in parents {
        match visible(parent, path) {
            Visible::Here(metadata) => return Some((parent.join(path), *metadata)),
            Visible::Hidden => return None,
            Visible::Below => {}
        }
    }
    None
}

enum Visible {
    Here(Box<Metadata>),
    Hidden,
    Below,
}

fn visible(layer: &Path, path: &Path) -> Visible {
    let mut at = layer.to_path_buf();
    let mut last = None;
    for component in path.components() {
        if last.as_ref().is_some_and(|m: &Metadata| !m.is_dir()) {
            // What is no directory here ends the merged one, and a link must never be followed:
            // it could lead out of the layer.
            return Visible::Hidden;
        }
        // An opaque directory hides its contents of the layers below.
        let opaque = last.is_some() && is_opaque(&at);
        at.push(component);
        match fs::symlink_metadata(&at) {
            Ok(metadata) if is_whiteout(&metadata) => return Visible::Hidden,
            Ok(metadata) => last = Some(metadata),
            Err(_) if opaque => return Visible::Hidden,
            Err(_) => return Visible::Below,
        }
    }
    last.map_or(Visible::Below, |metadata| Visible::Here(Box::new(metadata)))
}

pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0u8; 2];
    rustix::fs::lgetxattr(directory, "trusted.overlay.opaque", &mut value[..])
        .is_ok_and(|length| length == 1 && value[0] == b'y')
}
