//! The gRPC health check: one unary call, which needs no more of gRPC than its framing.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::http_get;
use crate::pod::probes::check::Outcome;

/// An answer of the health service has a few bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// Asks `grpc.health.v1.Health/Check`.
pub(crate) async fn check(host: &str, port: u16, service: &str) -> Outcome {
    let to = http_get::authority(host, port);
    let stream = match http_get::connect(host, port).await {
        Ok(stream) => stream,
        Err(error) => {
            let why =
                format!("connection error: desc = \"transport: Error while dialing: {error}\"");
            return Outcome::Failure(format!("error: failed to connect service {to:?}: {why}"));
        }
    };
    let failed = |error: String| Outcome::Failure(format!("error: health rpc failed: {error}"));
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        match hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await {
            Ok(parts) => parts,
            Err(error) => return failed(telemetry::Chain(&error).to_string()),
        };
    let driving = stdx::task::spawn("grpc-probe", connection);
    let request = http::Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message(service)));
    let answer = match request {
        Ok(request) => exchange(&mut sender, request).await,
        Err(error) => Err(error.to_string()),
    };
    driving.abort();
    match answer {
        Ok((code, _)) if code == "12" => Outcome::Failure(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health)"
                .to_owned(),
        ),
        Ok((code, body)) if code == "0" => match status(&body) {
            1 => Outcome::Success,
            other => {
                Outcome::Failure(format!("service unhealthy (responded with {:?})", word(other)))
            }
        },
        Ok((code, _)) => failed(format!("rpc error: code = {code}")),
        Err(error) => failed(error),
    }
}

async fn exchange(
    sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    request: http::Request<Full<Bytes>>,
) -> Result<(String, Bytes), String> {
    let answer =
        sender.send_request(request).await.map_err(|error| telemetry::Chain(&error).to_string())?;
    let in_head = answer.headers().get("grpc-status").cloned();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let in_trailers = body.trailers().and_then(|t| t.get("grpc-status")).cloned();
    let code = in_trailers.or(in_head);
    let code = code.and_then(|code| code.to_str().ok().map(str::to_owned));
    Ok((code.unwrap_or_default(), body.to_bytes()))
}

/// `HealthCheckRequest { service = 1 }` with the frame's head.
fn message(service: &str) -> Bytes {
    let mut body = BytesMut::new();
    if !service.is_empty() {
        body.put_u8(0x0a);
        varint(service.len(), &mut body);
        body.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(body.len()).unwrap_or(0));
    frame.put_slice(&body);
    frame.freeze()
}

fn varint(mut n: usize, out: &mut BytesMut) {
    while n >= 0x80 {
        out.put_u8(u8::try_from(n & 0x7f).unwrap_or(0) | 0x80);
        n >>= 7;
    }
    out.put_u8(u8::try_from(n).unwrap_or(0));
}

/// `HealthCheckResponse { status = 1 }`: an absent status is 0, `UNKNOWN`.
fn status(frame: &[u8]) -> u8 {
    match frame.get(5..7) {
        Some([0x08, status]) => *status,
        _ => 0,
    }
}

fn word(status: u8) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 2]), 2);
        assert_eq!(status(&[0, 0, 0, 0, 0]), 0);
    }
}
