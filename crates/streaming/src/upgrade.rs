//! Which protocol a client asks for, and the answer that switches to it.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const SPDY: &str = "SPDY/3.1";
const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Exec and attach.
    Process,
    /// Port-forward.
    Ports,
}

/// How the bytes of a connection are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Spdy,
    /// Messages whose first byte is a channel.
    Binary,
    /// Messages whose first character is a channel, the rest in base64.
    Base64,
    /// SPDY inside the messages of a websocket.
    Tunnel,
}

/// The protocol that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub(crate) framing: Framing,
    /// The version of the remote command protocol, 1 to 5.
    pub(crate) version: u8,
    name: &'static str,
    websocket: bool,
}

/// A request that cannot be upgraded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not ask for a protocol to switch to.
    #[error("you must specify at least 1 connection upgrade")]
    NotUpgrade,
    /// None of the protocols it asks for is known.
    #[error("unable to upgrade: unable to negotiate protocol: client supports {client:?}")]
    NoProtocol {
        /// What it asked for.
        client: Vec<String>,
    },
    /// It asks for a websocket without a key.
    #[error("missing websocket key")]
    NoKey,
}

impl Refused {
    /// The code of the answer.
    pub fn code(&self) -> StatusCode {
        match self {
            Self::NotUpgrade | Self::NoKey => StatusCode::BAD_REQUEST,
            Self::NoProtocol { .. } => StatusCode::FORBIDDEN,
        }
    }
}

type Row = (&'static str, Framing, u8);

/// Best first.
const PROCESS_WS: [Row; 5] = [
    ("v5.channel.k8s.io", Framing::Binary, 5),
    ("v4.channel.k8s.io", Framing::Binary, 4),
    ("v4.base64.channel.k8s.io", Framing::Base64, 4),
    ("channel.k8s.io", Framing::Binary, 1),
    ("base64.channel.k8s.io", Framing::Base64, 1),
];
const PROCESS_SPDY: [Row; 4] = [
    ("v4.channel.k8s.io", Framing::Spdy, 4),
    ("v3.channel.k8s.io", Framing::Spdy, 3),
    ("v2.channel.k8s.io", Framing::Spdy, 2),
    ("channel.k8s.io", Framing::Spdy, 1),
];
const PORTS_WS: [Row; 3] = [
    ("SPDY/3.1+portforward.k8s.io", Framing::Tunnel, 1),
    ("v4.channel.k8s.io", Framing::Binary, 4),
    ("v4.base64.channel.k8s.io", Framing::Base64, 4),
];
const PORTS_SPDY: [Row; 1] = [("portforward.k8s.io", Framing::Spdy, 1)];

impl Upgrade {
    /// Agrees on a protocol and makes the answer; the connection is upgraded after it was sent.
    ///
    /// # Errors
    /// When the request cannot be upgraded.
    pub fn negotiate<B>(
        request: &Request<B>,
        purpose: Purpose,
    ) -> Result<(Self, Response<()>), Refused> {
        let headers = request.headers();
        let wanted = words(headers, &UPGRADE);
        let asks = |name: &str| wanted.iter().any(|word| word.eq_ignore_ascii_case(name));
        if !words(headers, &CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade")) {
            return Err(Refused::NotUpgrade);
        }
        let websocket = asks("websocket");
        if !websocket && !asks(SPDY) {
            return Err(Refused::NotUpgrade);
        }
        let rows: &[Row] = match (purpose, websocket) {
            (Purpose::Process, true) => &PROCESS_WS,
            (Purpose::Process, false) => &PROCESS_SPDY,
            (Purpose::Ports, true) => &PORTS_WS,
            (Purpose::Ports, false) => &PORTS_SPDY,
        };
        let client =
            if websocket { words(headers, &WS_PROTOCOL) } else { words(headers, &STREAM_VERSION) };
        let (name, framing, version) = choose(rows, &client)?;
        let upgrade = Self { framing, version, name, websocket };
        let answer = upgrade.answer(headers, !client.is_empty())?;
        Ok((upgrade, answer))
    }

    fn answer(&self, request: &HeaderMap, named: bool) -> Result<Response<()>, Refused> {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let name = HeaderValue::from_static(self.name);
        if self.websocket {
            let key = request.get(&WS_KEY).ok_or(Refused::NoKey)?;
            let accept = derive_accept_key(key.as_bytes());
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(WS_ACCEPT, HeaderValue::from_str(&accept).map_err(|_| Refused::NoKey)?);
            // A protocol that was not asked for must not be named.
            if named {
                headers.insert(WS_PROTOCOL, name);
            }
        } else {
            headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
            headers.insert(STREAM_VERSION, name);
        }
        Ok(answer)
    }
}

/// The first of the client's wishes that is known; without wishes, the oldest protocol.
fn choose(rows: &[Row], client: &[String]) -> Result<Row, Refused> {
    if client.is_empty() {
        let oldest = rows.iter().find(|(name, ..)| !name.starts_with('v')).or(rows.last());
        return oldest.copied().ok_or(Refused::NoProtocol { client: Vec::new() });
    }
    let known = client.iter().find_map(|name| rows.iter().find(|(row, ..)| row == name));
    known.copied().ok_or_else(|| Refused::NoProtocol { client: client.to_vec() })
}

fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|word| word.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn the_clients_first_known_protocol_is_taken() {
        let asked = request(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v9.channel.k8s.io, v5.channel.k8s.io, channel.k8s.io"),
        ]);
        let (upgrade, answer) = Upgrade::negotiate(&asked, Purpose::Process).unwrap();
        assert_eq!((upgrade.framing, upgrade.version), (Framing::Binary, 5));
        assert_eq!(answer.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        // The example of RFC 6455.
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn spdy_is_agreed_on_by_stream_versions() {
        let headers = |version: &'static str| {
            [
                ("connection", "Upgrade"),
                ("upgrade", "SPDY/3.1"),
                ("x-stream-protocol-version", version),
            ]
        };
        let exec = request(&headers("v4.channel.k8s.io"));
        let (upgrade, answer) = Upgrade::negotiate(&exec, Purpose::Process).unwrap();
        assert_eq!((upgrade.framing, upgrade.version), (Framing::Spdy, 4));
        assert_eq!(answer.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
        let ports = request(&headers("portforward.k8s.io"));
        assert!(Upgrade::negotiate(&ports, Purpose::Ports).is_ok());
        let refused = Upgrade::negotiate(&ports, Purpose::Process).unwrap_err();
        assert_eq!(refused.code(), StatusCode::FORBIDDEN);
        assert_eq!(
            Upgrade::negotiate(&request(&[]), Purpose::Ports).unwrap_err(),
            Refused::NotUpgrade
        );
    }
}
