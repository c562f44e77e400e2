//! The bytes of the log: one frame per batch.
//!
//! ```text
//! frame   = length:u32le  crc32c(length, payload):u32le  payload
//! payload = first revision:u64le  count:u32le  record*
//! record  = kind:u8  key length:u32le  key  [ value length:u32le  value ]   (no value on delete)
//! ```
//! The checksum covers the length, so that a zero-filled tail is never a frame.

use bytes::Bytes;

use crate::api::Revision;

/// Bytes before the payload.
pub(crate) const HEADER: usize = 8;
/// Bytes of the smallest payload.
pub(crate) const MIN_PAYLOAD: usize = 12;

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// One change as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

/// A batch: its records have the revisions `first`, `first + 1` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: Revision,
    pub(crate) records: Vec<Record>,
}

/// Builds the bytes of a frame record by record.
pub(crate) struct FrameBuilder {
    buffer: Vec<u8>,
    count: u32,
}

impl FrameBuilder {
    pub(crate) fn new(first: Revision) -> Self {
        let mut buffer = vec![0; HEADER];
        buffer.extend_from_slice(&first.0.to_le_bytes());
        buffer.extend_from_slice(&0_u32.to_le_bytes());
        Self { buffer, count: 0 }
    }

    pub(crate) fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.count += 1;
        self.buffer.push(if value.is_some() { PUT } else { DELETE });
        self.bytes(key);
        if let Some(value) = value {
            self.bytes(value);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.buffer[HEADER + 8..HEADER + 12].copy_from_slice(&self.count.to_le_bytes());
        let length = u32::try_from(self.buffer.len() - HEADER)
            .expect("the writer bounds a batch far below 4 GiB");
        self.buffer[..4].copy_from_slice(&length.to_le_bytes());
        let crc = checksum(length, &self.buffer[HEADER..]);
        self.buffer[4..8].copy_from_slice(&crc.to_le_bytes());
        self.buffer
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("the store bounds keys and values");
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
    }
}

/// Reads the frame at `at`; the offset behind it comes with it. `None` when there is no valid one.
pub(crate) fn read(data: &Bytes, at: usize) -> Option<(Frame, usize)> {
    let end = end_of_valid(data, at)?;
    let payload = data.slice(at + HEADER..end);
    Some((decode(&payload)?, end))
}

/// The first revision a frame at `at` would have, without looking at its checksum.
pub(crate) fn peek_revision(data: &[u8], at: usize) -> Option<Revision> {
    let bytes = data.get(at + HEADER..at + HEADER + 8)?;
    Some(Revision(u64::from_le_bytes(bytes.try_into().ok()?)))
}

/// The offset behind the frame at `at`, when its length fits and its checksum holds.
pub(crate) fn end_of_valid(data: &[u8], at: usize) -> Option<usize> {
    let length = u32_at(data, at)?;
    let crc = u32_at(data, at + 4)?;
    let size = usize::try_from(length).ok()?;
    let end = at.checked_add(HEADER)?.checked_add(size)?;
    let payload = data.get(at + HEADER..end)?;
    (size >= MIN_PAYLOAD && checksum(length, payload) == crc).then_some(end)
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn decode(payload: &Bytes) -> Option<Frame> {
    let first = Revision(u64::from_le_bytes(payload.get(..8)?.try_into().ok()?));
    let count = u32_at(payload, 8)?;
    let mut at = MIN_PAYLOAD;
    let mut records = Vec::with_capacity(usize::try_from(count).ok()?.min(payload.len()));
    for _ in 0..count {
        let kind = *payload.get(at)?;
        let key = chunk(payload, at + 1)?;
        at += 5 + key.len();
        let value = match kind {
            PUT => {
                let value = chunk(payload, at)?;
                at += 4 + value.len();
                Some(value)
            }
            DELETE => None,
            _ => return None,
        };
        records.push(Record { key, value });
    }
    (at == payload.len()).then_some(Frame { first, records })
}

fn chunk(payload: &Bytes, at: usize) -> Option<Bytes> {
    let length = usize::try_from(u32_at(payload, at)?).ok()?;
    let end = at.checked_add(4)?.checked_add(length)?;
    (end <= payload.len()).then(|| payload.slice(at + 4..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut builder = FrameBuilder::new(Revision(7));
        builder.push(b"a", Some(b"1"));
        builder.push(b"b", None);
        builder.finish()
    }

    #[test]
    fn a_frame_reads_back_as_written() {
        let data = Bytes::from(sample());
        let (frame, end) = read(&data, 0).unwrap();
        assert_eq!(end, data.len());
        assert_eq!(frame.first, Revision(7));
        let record = |k: &'static str, v: Option<&'static str>| Record {
            key: k.into(),
            value: v.map(Bytes::from),
        };
        assert_eq!(frame.records, [record("a", Some("1")), record("b", None)]);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = sample();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&Bytes::from(bad), 0).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_not_a_frame() {
        assert!(read(&Bytes::from(vec![0; 64]), 0).is_none());
    }
}
