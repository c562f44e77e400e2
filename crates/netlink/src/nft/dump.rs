//! What is there.

use super::attributes::parse;
use super::transaction::{Family, open_socket};
use crate::NetlinkError;

const GET_TABLE: u16 = 10 << 8 | 1;
const REQUEST_DUMP: u16 = 0x301;
const TYPE_DONE: u16 = 3;

/// The names of all tables of a family.
///
/// # Errors
/// When the kernel has no nftables, or refuses.
pub fn table_names(family: Family) -> Result<Vec<String>, NetlinkError> {
    let socket = open_socket()?;
    let mut request = Vec::new();
    request.extend_from_slice(&20_u32.to_ne_bytes());
    request.extend_from_slice(&GET_TABLE.to_ne_bytes());
    request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[family as u8, 0, 0, 0]);
    socket.send(&request, 0).map_err(NetlinkError::Socket)?;
    let mut names = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full().map_err(NetlinkError::Socket)?;
        let mut rest = bytes.as_slice();
        while let Some(header) = rest.get(..16) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            if kind == TYPE_DONE {
                return Ok(names);
            }
            let Some(body) = rest.get(16..length) else { return Err(NetlinkError::Malformed) };
            if kind == 2 {
                let code = body.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
                return Err(NetlinkError::refused("list nftables tables", -code.unwrap_or(-5)));
            }
            let attributes = parse(body.get(4..).unwrap_or_default());
            names.extend(
                attributes.iter().filter(|(kind, _)| *kind == 1).map(|(_, name)| {
                    String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()
                }),
            );
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
