//! Two halves of reading a layer on two processors: one unpacks the bytes, the other the files.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::ImageError;

/// Bytes that are passed on at once, and how many such pieces may wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 8;

/// Runs `produce` beside `consume`, which reads what the former writes. What `consume` leaves is
/// read to its end, so that `produce` sees all of its source, unless `consume` fails.
pub(crate) fn through<T: Send>(
    produce: impl FnOnce(&mut Inlet) -> io::Result<T> + Send,
    consume: impl FnOnce(&mut Outlet) -> Result<(), ImageError>,
) -> Result<T, ImageError> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(PIECES);
        let producer = scope.spawn(move || {
            let mut inlet = Inlet { sender, piece: Vec::new() };
            let produced = produce(&mut inlet)?;
            inlet.flush()?;
            Ok::<T, io::Error>(produced)
        });
        let mut outlet = Outlet { receiver, piece: Vec::new(), at: 0 };
        let consumed = consume(&mut outlet)
            .and_then(|()| io::copy(&mut outlet, &mut io::sink()).map_err(ImageError::Archive));
        // Whoever writes to it now learns that nobody reads.
        drop(outlet);
        let produced =
            producer.join().unwrap_or_else(|_| Err(io::Error::other("reading the layer panicked")));
        match (consumed, produced) {
            (Ok(_), Ok(produced)) => Ok(produced),
            // A broken source looks to the other half like an archive that ends too early.
            (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(ImageError::Archive(error))
            }
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => Err(ImageError::Archive(error)),
        }
    })
}

/// Where the one half writes.
pub(crate) struct Inlet {
    sender: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Write for Inlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE_BYTES);
        }
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where the other half reads.
pub(crate) struct Outlet {
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Outlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Ok(piece) = self.receiver.recv() else { return Ok(0) };
            (self.piece, self.at) = (piece, 0);
        }
        let read = buffer.len().min(self.piece.len() - self.at);
        buffer[..read].copy_from_slice(&self.piece[self.at..self.at + read]);
        self.at += read;
        Ok(read)
    }
}
