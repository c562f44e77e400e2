//! Where data for the client goes: a channel of a websocket or a SPDY stream.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::spdy::Output;

/// The sending side. Clones send to the same place.
#[derive(Clone)]
pub(crate) enum Sink {
    Channel(u8, mpsc::Sender<(u8, Bytes)>),
    Stream(Output),
}

impl Sink {
    /// Sends; an error means that the connection is gone.
    pub(crate) async fn send(&self, data: Bytes) -> io::Result<()> {
        match self {
            Self::Channel(channel, messages) => {
                let sent = messages.send((*channel, data)).await;
                sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
            Self::Stream(output) => output.send(data).await,
        }
    }

    /// Says that nothing more comes, where that can be said.
    pub(crate) async fn finish(&self) {
        if let Self::Stream(output) = self {
            // When the connection is gone, it is finished too.
            output.finish().await.ok();
        }
    }
}
