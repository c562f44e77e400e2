//! Frames of SPDY/3.1.
//!
//! ```text
//!  control: 1|version 15|type 16|flags 8|length 24|payload
//!  data:    0|stream  31        |flags 8|length 24|bytes
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Larger frames end the connection. Peers send at most 32 KiB of data at a time.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;

const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const ID_MASK: u32 = 0x7fff_ffff;

/// A frame. Header blocks are still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    SynStream {
        stream: u32,
        fin: bool,
        headers: Bytes,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Bytes,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Bytes,
    },
    /// `SETTINGS`, `WINDOW_UPDATE` and what is not known: nothing follows from them here.
    Ignored,
}

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("frame of type {0} is too short")]
    TooShort(u16),
    #[error("version {0} of SPDY is not spoken")]
    Version(u16),
}

/// Takes one frame off the front of `buffer`, or nothing when it is not whole yet.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < HEAD_BYTES {
        return Ok(None);
    }
    let word = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
    let flags = buffer[4];
    let length =
        usize::from(buffer[5]) << 16 | usize::from(buffer[6]) << 8 | usize::from(buffer[7]);
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(length));
    }
    if buffer.len() < HEAD_BYTES + length {
        return Ok(None);
    }
    buffer.advance(HEAD_BYTES);
    let payload = buffer.split_to(length).freeze();
    let fin = flags & FLAG_FIN != 0;
    if word & !ID_MASK == 0 {
        return Ok(Some(Frame::Data { stream: word, fin, data: payload }));
    }
    let [a, b, c, d] = word.to_be_bytes();
    let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    control(kind, fin, payload).map(Some)
}

fn control(kind: u16, fin: bool, mut payload: Bytes) -> Result<Frame, FrameError> {
    let needed = match kind {
        1 => 10,
        2 | 6 | 8 => 4,
        3 | 7 => 8,
        _ => return Ok(Frame::Ignored),
    };
    if payload.len() < needed {
        return Err(FrameError::TooShort(kind));
    }
    let first = payload.get_u32();
    let stream = first & ID_MASK;
    Ok(match kind {
        1 => {
            // The associated stream, priority and slot mean nothing here.
            payload.advance(6);
            Frame::SynStream { stream, fin, headers: payload }
        }
        2 => Frame::SynReply { stream, fin, headers: payload },
        3 => Frame::RstStream { stream, status: payload.get_u32() },
        6 => Frame::Ping { id: first },
        7 => Frame::GoAway { last: stream, status: payload.get_u32() },
        _ => Frame::Headers { stream, fin, headers: payload },
    })
}

/// Appends a frame. Its payload must not be larger than [`FRAME_BYTES_MAX`].
pub(crate) fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Data { stream, fin, data } => {
            out.put_u32(stream & ID_MASK);
            flags_and_length(*fin, data.len(), out);
            out.put_slice(data);
        }
        Frame::SynStream { stream, fin, headers } => {
            head(1, *fin, headers.len() + 10, out);
            out.put_u32(*stream);
            out.put_u32(0);
            out.put_u16(0);
            out.put_slice(headers);
        }
        Frame::SynReply { stream, fin, headers } => with_headers(2, *stream, *fin, headers, out),
        Frame::Headers { stream, fin, headers } => with_headers(8, *stream, *fin, headers, out),
        Frame::RstStream { stream, status } => two_words(3, *stream, *status, out),
        Frame::GoAway { last, status } => two_words(7, *last, *status, out),
        Frame::Ping { id } => {
            head(6, false, 4, out);
            out.put_u32(*id);
        }
        Frame::Ignored => {}
    }
}

fn with_headers(kind: u16, stream: u32, fin: bool, headers: &Bytes, out: &mut BytesMut) {
    head(kind, fin, headers.len() + 4, out);
    out.put_u32(stream);
    out.put_slice(headers);
}

fn two_words(kind: u16, first: u32, second: u32, out: &mut BytesMut) {
    head(kind, false, 8, out);
    out.put_u32(first);
    out.put_u32(second);
}

fn head(kind: u16, fin: bool, length: usize, out: &mut BytesMut) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    flags_and_length(fin, length, out);
}

fn flags_and_length(fin: bool, length: usize, out: &mut BytesMut) {
    debug_assert!(length <= FRAME_BYTES_MAX, "writers split what they send");
    let length = u32::try_from(length).unwrap_or(0) & 0x00ff_ffff;
    out.put_u32(u32::from(fin) << 24 | length);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let id = || 0..=ID_MASK;
        prop_oneof![
            (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, data)| Frame::Data {
                stream,
                fin,
                data
            }),
            (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, headers)| Frame::SynStream {
                stream,
                fin,
                headers
            }),
            (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, headers)| Frame::SynReply {
                stream,
                fin,
                headers
            }),
            (id(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
            (id(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_being_written_and_read_in_pieces(
            frames in proptest::collection::vec(frames(), 0..8),
            piece in 1_usize..50,
        ) {
            let mut bytes = BytesMut::new();
            frames.iter().for_each(|frame| encode(frame, &mut bytes));
            let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
            for chunk in bytes.chunks(piece) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..]);
        assert_eq!(decode(&mut buffer), Err(FrameError::TooLarge(0x00ff_ffff)));
    }
}
