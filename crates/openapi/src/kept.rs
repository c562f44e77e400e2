//! Documents of custom kinds that were asked for lately.
//!
//! Every client that looks for a kind asks for the documents of its version, and thousands of
//! versions may be there: those that were read last are kept, up to a number of bytes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::documents::{Document, Key};

/// Bytes of all that is kept; the documents of all built-in kinds together have as many.
const BYTES: usize = 8 << 20;

/// Documents by what they are of.
#[derive(Default)]
pub(crate) struct Kept(Mutex<State>);

#[derive(Default)]
struct State {
    documents: HashMap<Key, (Document, u64)>,
    bytes: usize,
    /// How often anything was looked for.
    turn: u64,
}

impl Kept {
    /// The document of a key, if it is the one with this hash.
    pub(crate) fn find(&self, key: &Key, hash: &str) -> Option<Document> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.turn += 1;
        let turn = state.turn;
        let (document, last) = state.documents.get_mut(key)?;
        if *document.hash != *hash {
            return None;
        }
        *last = turn;
        Some(document.clone())
    }

    /// Keeps a document in place of what was found least lately.
    pub(crate) fn put(&self, key: Key, document: &Document) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = state.turn;
        if let Some((old, _)) = state.documents.remove(&key) {
            state.bytes -= old.bytes.len();
        }
        // What is larger than all is made each time.
        if document.bytes.len() > BYTES {
            return;
        }
        while state.bytes + document.bytes.len() > BYTES {
            let oldest = state.documents.iter().min_by_key(|(_, (_, last))| *last);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            if let Some((old, _)) = state.documents.remove(&oldest) {
                state.bytes -= old.bytes.len();
            }
        }
        state.bytes += document.bytes.len();
        state.documents.insert(key, (document.clone(), turn));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn key(path: &str) -> Key {
        Key::V3(crate::Encoding::Json, path.to_owned())
    }

    fn document(hash: &str, len: usize) -> Document {
        Document { bytes: Bytes::from(vec![b' '; len]), hash: hash.into() }
    }

    #[test]
    fn a_document_is_found_while_it_is_the_one() {
        let kept = Kept::default();
        kept.put(key("a"), &document("1", 10));
        assert!(kept.find(&key("a"), "1").is_some());
        assert!(kept.find(&key("a"), "2").is_none());
        kept.put(key("a"), &document("2", 20));
        assert!(kept.find(&key("a"), "1").is_none() && kept.find(&key("a"), "2").is_some());
        assert_eq!(kept.0.lock().unwrap().bytes, 20);
    }

    #[test]
    fn what_was_found_least_lately_makes_room() {
        let kept = Kept::default();
        for path in ["a", "b", "c"] {
            kept.put(key(path), &document("1", BYTES / 3));
            kept.find(&key(path), "1").unwrap();
        }
        kept.find(&key("a"), "1").unwrap();
        kept.put(key("d"), &document("1", BYTES / 3));
        assert!(kept.find(&key("b"), "1").is_none());
        assert!(["a", "c", "d"].iter().all(|path| kept.find(&key(path), "1").is_some()));
        kept.put(key("e"), &document("1", BYTES + 1));
        assert!(kept.find(&key("e"), "1").is_none() && kept.find(&key("a"), "1").is_some());
    }
}
