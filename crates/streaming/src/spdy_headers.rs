//! Header blocks of SPDY/3: names and values, compressed by zlib with a dictionary that the
//! protocol prescribes. One stream of compression per direction of a connection.

use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// More of a block than this is refused, before and after it is decompressed.
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// Words of the dictionary that have their length in front, separated by bars.
const WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|\
    accept-language|accept-ranges|age|allow|authorization|cache-control|connection|content-base|\
    content-encoding|content-language|content-length|content-location|content-md5|content-range|\
    content-type|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|\
    if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|proxy-authenticate|\
    proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|\
    user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|\
    public|set-cookie|keep-alive|origin";
/// What follows the words. Every byte is fixed by SPDY/3, section 2.6.10.1: both ends must begin
/// with the same dictionary, the status lines in it are no answers of ours.
const TAIL: &str = "10010120120220520630030230330430530630740240540640740840941041141241341441541\
    6417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad \
    Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented\
    503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, \
    Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS.split('|') {
        dictionary.put_u32(u32::try_from(word.len()).unwrap_or(0));
        dictionary.put_slice(word.as_bytes());
    }
    dictionary.put_slice(TAIL.as_bytes());
    dictionary
});

/// Names, in lower case, and values.
pub(crate) type Headers = Vec<(String, String)>;

/// A block that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("header block is too large")]
    TooLarge,
    #[error("header block is not compressed as it should be")]
    Compression,
    #[error("header block ends too early")]
    TooShort,
}

/// Reads the blocks of one direction, in their order.
pub(crate) struct HeaderReader(Decompress);

impl HeaderReader {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        let mut plain = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            if plain.len() > BLOCK_BYTES_MAX || block.len() > BLOCK_BYTES_MAX {
                return Err(HeaderError::TooLarge);
            }
            plain.reserve(1024);
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let read = usize::try_from(self.0.total_in() - read).unwrap_or(rest.len());
            rest = rest.get(read..).unwrap_or_default();
            match status {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Compression)?;
                    continue;
                }
                Err(_) => return Err(HeaderError::Compression),
                Ok(Status::Ok | Status::BufError | Status::StreamEnd) => {}
            }
            let stuck = read == 0 && self.0.total_out() == written;
            if stuck || (rest.is_empty() && plain.len() < plain.capacity()) {
                return parse(Bytes::from(plain));
            }
        }
    }
}

fn parse(mut plain: Bytes) -> Result<Headers, HeaderError> {
    let count = number(&mut plain)?;
    // Every pair takes eight bytes at least.
    if count > plain.len() / 8 {
        return Err(HeaderError::TooShort);
    }
    let mut headers = Headers::with_capacity(count);
    for _ in 0..count {
        let name = text(&mut plain)?.to_lowercase();
        headers.push((name, text(&mut plain)?));
    }
    Ok(headers)
}

fn number(plain: &mut Bytes) -> Result<usize, HeaderError> {
    let number = plain.try_get_u32().map_err(|_| HeaderError::TooShort)?;
    usize::try_from(number).map_err(|_| HeaderError::TooLarge)
}

fn text(plain: &mut Bytes) -> Result<String, HeaderError> {
    let length = number(plain)?;
    if length > plain.len() {
        return Err(HeaderError::TooShort);
    }
    Ok(String::from_utf8_lossy(&plain.split_to(length)).into_owned())
}

/// Writes the blocks of one direction, in their order.
pub(crate) struct HeaderWriter(Compress);

impl HeaderWriter {
    pub(crate) fn new() -> Result<Self, HeaderError> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Compression)?;
        Ok(Self(compress))
    }

    pub(crate) fn write(&mut self, headers: &Headers) -> Result<Bytes, HeaderError> {
        let mut plain = BytesMut::new();
        let length = |n: usize| u32::try_from(n).map_err(|_| HeaderError::TooLarge);
        plain.put_u32(length(headers.len())?);
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(length(text.len())?);
                plain.put_slice(text.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let mut rest = &plain[..];
        loop {
            block.reserve(256);
            let before = self.0.total_in();
            let status = self.0.compress_vec(rest, &mut block, FlushCompress::Sync);
            status.map_err(|_| HeaderError::Compression)?;
            let read = usize::try_from(self.0.total_in() - before).unwrap_or(rest.len());
            rest = rest.get(read..).unwrap_or_default();
            if rest.is_empty() && block.len() < block.capacity() {
                return Ok(Bytes::from(block));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_the_published_one() {
        assert_eq!(DICTIONARY.len(), 1423);
        // Adler-32, as it stands in the head of every first block.
        let (a, b) = DICTIONARY.iter().fold((1_u32, 0_u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    proptest! {
        #[test]
        fn blocks_survive_being_written_and_read(
            blocks in proptest::collection::vec(
                proptest::collection::vec(("[a-z-]{1,20}", ".{0,50}"), 0..8), 1..5),
        ) {
            let (mut writer, mut reader) = (HeaderWriter::new().unwrap(), HeaderReader::new());
            for headers in blocks {
                let block = writer.write(&headers).unwrap();
                prop_assert_eq!(reader.read(&block).unwrap(), headers);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            HeaderReader::new().read(&bytes).ok();
            parse(Bytes::from(bytes)).ok();
        }
    }

    #[test]
    fn a_block_that_would_fill_the_memory_is_refused() {
        let mut writer = HeaderWriter::new().unwrap();
        let block = writer.write(&vec![("a".into(), "x".repeat(1 << 20))]).unwrap();
        assert!(block.len() < BLOCK_BYTES_MAX);
        assert!(matches!(HeaderReader::new().read(&block), Err(HeaderError::TooLarge)));
    }
}
