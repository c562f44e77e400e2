//! UDP and TCP listeners.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use clock::SharedClock;
use hickory_proto::op::ResponseCode;
use prometheus::IntCounterVec;
use stdx::shutdown::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::forward::Upstreams;
use crate::lookup::{Answer, lookup};
use crate::message::Question;
use crate::zone::Zone;

/// Questions that are worked on at once; further UDP ones are dropped, as a full socket does.
const QUESTIONS_MAX: usize = 2000;
/// TCP connections at once.
const CONNECTIONS_MAX: usize = 500;
/// How long a TCP connection may be silent.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// The longest question: larger ones are not DNS as clients speak it.
const QUESTION_BYTES_MAX: usize = 4096;

/// What every question needs.
pub(crate) struct Resolver {
    pub(crate) zone: Arc<RwLock<Zone>>,
    pub(crate) domain: String,
    pub(crate) upstreams: Upstreams,
    pub(crate) clock: SharedClock,
    pub(crate) requests: IntCounterVec,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl Resolver {
    async fn resolve(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = match Question::read(bytes) {
            Ok(question) => question,
            Err(answer) => return answer,
        };
        let protocol = if transport == Transport::Udp { "udp" } else { "tcp" };
        self.requests.with_label_values(&[protocol]).inc();
        let limit = match transport {
            Transport::Udp => question.udp_bytes(),
            Transport::Tcp => usize::from(u16::MAX),
        };
        let answer = self.look_up(&question.name, &question);
        match answer {
            Answer::Found(values) => question.found(&values, &[], limit),
            Answer::FoundWith(values, extra) => question.found(&values, &extra, limit),
            Answer::NoData => question.empty(ResponseCode::NoError, &self.domain),
            Answer::NoName => question.empty(ResponseCode::NXDomain, &self.domain),
            Answer::Alias(target) => self.follow(&question, &target, transport, limit).await,
            Answer::NotOurs => {
                let tcp = transport == Transport::Tcp;
                match self.upstreams.ask(bytes, tcp, &self.clock).await {
                    Some(answer) => Some(answer),
                    None => question.failed(),
                }
            }
        }
    }

    fn look_up(&self, name: &str, question: &Question) -> Answer {
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        lookup(&zone, &self.domain, name, question.kind)
    }

    /// Answers with an alias and, as far as it can be had, what its target stands for.
    async fn follow(
        &self,
        question: &Question,
        target: &str,
        transport: Transport,
        limit: usize,
    ) -> Option<Vec<u8>> {
        let about_target = question.about(target)?;
        let targets_answer = match self.look_up(target, question) {
            Answer::Found(values) => Question::read(&about_target).ok()?.found(&values, &[], limit),
            Answer::NotOurs => {
                let tcp = transport == Transport::Tcp;
                self.upstreams.ask(&about_target, tcp, &self.clock).await
            }
            // An alias of an alias is not followed further: it could lead in a circle.
            _ => None,
        };
        question.alias(target, targets_answer.as_deref(), limit)
    }
}

/// Listeners that are bound, so that errors come before anybody counts on them.
pub(crate) struct Listeners {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Listeners {
    pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        // Port 0 asks for any; both must have the same.
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Self { udp: Arc::new(udp), tcp })
    }

    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    pub(crate) async fn serve(self, resolver: Arc<Resolver>, shutdown: &Shutdown) {
        tokio::select! {
            () = serve_udp(&self.udp, &resolver) => {}
            () = serve_tcp(&self.tcp, &resolver) => {}
            () = shutdown.begun() => {}
        }
    }
}

async fn serve_udp(socket: &Arc<UdpSocket>, resolver: &Arc<Resolver>) {
    let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        // Errors here are those of earlier answers (a client that is gone), not of the socket.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (socket, resolver) = (Arc::clone(socket), Arc::clone(resolver));
        let question = buffer[..length].to_vec();
        drop(stdx::task::spawn("dns-question", async move {
            if let Some(answer) = resolver.resolve(&question, Transport::Udp).await {
                socket.send_to(&answer, client).await.ok();
            }
            drop(place);
        }));
    }
}

async fn serve_tcp(listener: &TcpListener, resolver: &Arc<Resolver>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let resolver = Arc::clone(resolver);
        drop(stdx::task::spawn("dns-connection", async move {
            // An error is the client's end of the connection.
            serve_connection(stream, &resolver).await.ok();
            drop(place);
        }));
    }
}

async fn serve_connection(mut stream: TcpStream, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let question = tokio::select! {
            question = read_question(&mut stream) => question?,
            () = resolver.clock.sleep(TCP_IDLE) => return Ok(()),
        };
        let Some(answer) = resolver.resolve(&question, Transport::Tcp).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

async fn read_question(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUESTION_BYTES_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

#[cfg(test)]
mod tests;
