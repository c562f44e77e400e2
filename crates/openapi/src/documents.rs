//! Documents that are made on demand and shared while they are read.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use sha2::{Digest, Sha512};

use crate::kept::Kept;
use crate::{CustomKinds, CustomVersion, ForeignDocument, Parts, path_of, protobuf, versions};

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON.
    Json,
    /// `openapi.v2.Document` or `openapi.v3.Document` of the gnostic project.
    Protobuf,
}

/// One document.
#[derive(Clone, Debug)]
pub struct Document {
    /// What is sent.
    pub bytes: Bytes,
    /// A strong hash of the document, in upper-case hexadecimal.
    pub hash: Arc<str>,
}

/// All documents of a server.
#[derive(Default)]
pub struct Documents {
    made: Mutex<HashMap<Key, Made>>,
    index: OnceLock<Vec<(String, Arc<str>)>>,
    /// Of custom kinds.
    kept: Kept,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    V2(Encoding),
    V3(Encoding, String),
}

/// A document that was made before, and its bytes as long as somebody reads them.
struct Made {
    bytes: Weak<Vec<u8>>,
    hash: Arc<str>,
    /// Of the custom kinds that are in it.
    stamp: u64,
}

/// Bytes of which others may know without keeping them.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Documents {
    /// Nothing is made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The v2 document.
    pub fn v2(&self, encoding: Encoding, custom: &dyn CustomKinds) -> Document {
        self.made(Key::V2(encoding), custom.stamp(), || match encoding {
            Encoding::Json => Parts::v2(custom).v2_text().into(),
            Encoding::Protobuf => protobuf::encode(&Parts::v2(custom)),
        })
    }

    /// The v2 document with what of the documents of other servers is their own.
    pub fn v2_with(
        &self,
        encoding: Encoding,
        custom: &dyn CustomKinds,
        others: &[Arc<ForeignDocument>],
    ) -> Document {
        if others.is_empty() {
            return self.v2(encoding, custom);
        }
        let stamp = others.iter().fold(custom.stamp(), |stamp, other| {
            // The order says who is first where two have the same.
            stamp.rotate_left(7) ^ other.stamp()
        });
        self.made(Key::V2(encoding), stamp, || {
            let mut parts = Parts::v2(custom);
            let is_json = encoding == Encoding::Json;
            others.iter().for_each(|other| other.merge_into(&mut parts, is_json));
            if is_json { parts.v2_text().into() } else { protobuf::encode(&parts) }
        })
    }

    /// The v3 document of a path such as `apis/apps/v1` or `api/v1`. Its hash is that of the JSON,
    /// however it is written.
    pub fn v3(&self, path: &str, encoding: Encoding, custom: &dyn CustomKinds) -> Option<Document> {
        let built_in = versions().find(|(group, version)| path_of(group, version) == path);
        let Some((group, version)) = built_in else {
            return self.v3_custom(path, encoding, custom);
        };
        let key = |encoding| Key::V3(encoding, path.to_owned());
        let json = || Parts::v3(group, version).v3_text().into();
        if encoding == Encoding::Json {
            return Some(self.made(key(encoding), 0, json));
        }
        let hash = match self.known(&key(Encoding::Json), 0) {
            Some((_, hash)) => hash,
            None => self.made(key(Encoding::Json), 0, json).hash,
        };
        let made = self.made(key(encoding), 0, || protobuf::v3::encode(&Parts::v3(group, version)));
        Some(Document { hash, ..made })
    }

    /// The paths under `/openapi/v3`, such as `apis/apps/v1`, with the hash of each document. Those
    /// of custom kinds are told without the documents being made.
    pub fn v3_index(&self, custom: &dyn CustomKinds) -> Vec<(String, Arc<str>)> {
        let built_in = self.index.get_or_init(|| {
            let paths = versions().map(|(group, version)| path_of(group, version));
            paths
                .filter_map(|path| Some((path.clone(), self.v3(&path, Encoding::Json, &())?.hash)))
                .collect()
        });
        let mut index = built_in.clone();
        for of in custom.versions() {
            let path = custom_path(&of);
            if !built_in.iter().any(|(known, _)| *known == path) {
                index.push((path, hash(of.fingerprint.as_bytes()).into()));
            }
        }
        index
    }

    /// Those that were read lately are kept.
    fn v3_custom(
        &self,
        path: &str,
        encoding: Encoding,
        custom: &dyn CustomKinds,
    ) -> Option<Document> {
        let (group, version) = path.strip_prefix("apis/")?.split_once('/')?;
        let of = custom.version(group, version)?;
        let hash: Arc<str> = hash(of.fingerprint.as_bytes()).into();
        let key = Key::V3(encoding, path.to_owned());
        if let Some(document) = self.kept.find(&key, &hash) {
            return Some(document);
        }
        let parts = Parts::v3_custom(custom.kinds(group, version));
        let bytes = match encoding {
            Encoding::Json => Bytes::from(parts.v3_text()),
            Encoding::Protobuf => Bytes::from(protobuf::v3::encode(&parts)),
        };
        let document = Document { bytes, hash };
        self.kept.put(key, &document);
        Some(document)
    }

    fn made(&self, key: Key, stamp: u64, make: impl FnOnce() -> Vec<u8>) -> Document {
        let known = self.known(&key, stamp);
        if let Some((Some(bytes), hash)) = known {
            return Document { bytes, hash };
        }
        // Made without the lock: two readers at once may both do it, which is no harm.
        let bytes = Arc::new(make());
        let hash = known.map_or_else(|| hash(&bytes).into(), |(_, hash)| hash);
        let made = Made { bytes: Arc::downgrade(&bytes), hash: hash.clone(), stamp };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key, made);
        Document { bytes: Bytes::from_owner(Shared(bytes)), hash }
    }

    fn known(&self, key: &Key, stamp: u64) -> Option<(Option<Bytes>, Arc<str>)> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let found = made.get(key).filter(|found| found.stamp == stamp)?;
        Some((
            found.bytes.upgrade().map(|bytes| Bytes::from_owner(Shared(bytes))),
            found.hash.clone(),
        ))
    }

    /// Documents whose bytes are in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.made.lock().unwrap().values().filter(|made| made.bytes.strong_count() > 0).count()
    }
}

fn custom_path(of: &CustomVersion) -> String {
    format!("apis/{}/{}", of.group, of.version)
}

/// Upper-case hexadecimal, as upstream prints it in `?hash=`.
fn hash(document: &[u8]) -> String {
    Sha512::digest(document).iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}
