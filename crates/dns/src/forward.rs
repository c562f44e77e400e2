//! Questions that other resolvers answer.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clock::SharedClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// How long one resolver may take: the stub resolver of most systems asks again after 5 s.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions under way at once: CoreDNS' `max_concurrent` in kubeadm's configuration.
const CONCURRENT_MAX: usize = 1000;
/// resolv.conf(5) knows three servers.
const SERVERS_MAX: usize = 3;

/// The resolvers to ask, in order.
pub struct Upstreams {
    servers: Vec<SocketAddr>,
    places: Semaphore,
}

impl Upstreams {
    /// Asks these servers.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, places: Semaphore::new(CONCURRENT_MAX) }
    }

    /// Asks the servers of a resolv.conf, without `ourselves`; none when there is no such file.
    pub fn from_resolv_conf(path: &Path, ourselves: IpAddr) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let servers = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok())
            .filter(|server: &IpAddr| *server != ourselves)
            .take(SERVERS_MAX)
            .map(|server| SocketAddr::new(server, 53));
        Self::new(servers.collect())
    }

    /// The first answer of a resolver, as it came, for the same message id; `None` when none
    /// answered or too many questions are under way. Safe to drop.
    pub(crate) async fn ask(
        &self,
        query: &[u8],
        tcp: bool,
        clock: &SharedClock,
    ) -> Option<Vec<u8>> {
        let _place = self.places.try_acquire().ok()?;
        for server in &self.servers {
            let answer = async {
                if tcp { ask_tcp(*server, query).await } else { ask_udp(*server, query).await }
            };
            tokio::select! {
                answer = answer => match answer {
                    Ok(answer) => return Some(answer),
                    Err(error) => tracing::debug!(%server, %error, "resolver did not answer"),
                },
                () = clock.sleep(PATIENCE) => {
                    tracing::debug!(%server, "resolver did not answer in time");
                }
            }
        }
        None
    }
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { [0; 4].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // A connected socket takes answers from this server only.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer[..length].get(..2) == query.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
