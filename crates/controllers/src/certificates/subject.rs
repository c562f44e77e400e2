//! Certificates for exactly the subject that was asked for.
//!
//! `rcgen` knows names with one value of each attribute, but groups are organizations, of which a
//! user may have many, in one set or in several. So the subject is put as it is into what `rcgen`
//! made, and that is signed again.

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{KeyPair, SigningKey};
use x509_parser::prelude::{FromDer, X509Certificate};

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// The certificate with this name for its subject, in PEM. `key` has signed it, and signs it again.
pub(super) fn with_subject(
    certificate: &[u8],
    subject: &[u8],
    key: &KeyPair,
) -> Result<String, String> {
    let broken = || "certificate cannot be taken apart".to_owned();
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let signed: &[u8] = parsed.tbs_certificate.as_ref();
    let present = parsed.tbs_certificate.subject.as_raw();
    let content = content_of(signed).ok_or_else(broken)?;
    let at = offset(content, present).ok_or_else(broken)?;
    let mut next = content[..at].to_vec();
    next.extend_from_slice(subject);
    next.extend_from_slice(&content[at + present.len()..]);
    let next = element(SEQUENCE, &next);
    let outer = content_of(certificate).ok_or_else(broken)?;
    let algorithm = first(outer.get(signed.len()..).ok_or_else(broken)?).ok_or_else(broken)?;
    let mut signature = vec![0];
    signature.extend(key.sign(&next).map_err(|error| error.to_string())?);
    let whole = [next, algorithm.to_vec(), element(BIT_STRING, &signature)].concat();
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    Ok(pem::encode_config(&Pem::new("CERTIFICATE", element(SEQUENCE, &whole)), lines))
}

/// Where a part of a slice begins in it.
fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (at + part.len() <= whole.len()).then_some(at)
}

/// Length of an element's head and of its content.
fn lengths(der: &[u8]) -> Option<(usize, usize)> {
    let short = usize::from(*der.get(1)?);
    if short < 0x80 {
        return Some((2, short));
    }
    let head = 2 + (short & 0x7f);
    let content = der.get(2..head)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    Some((head, content))
}

fn content_of(der: &[u8]) -> Option<&[u8]> {
    let (head, content) = lengths(der)?;
    der.get(head..head + content)
}

/// The first of several elements, with its head.
fn first(der: &[u8]) -> Option<&[u8]> {
    let (head, content) = lengths(der)?;
    der.get(..head + content)
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    let bytes = content.len().to_be_bytes();
    let length: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    match length[..] {
        [] => der.push(0),
        [short] if short < 0x80 => der.push(short),
        _ => {
            der.push(0x80 | u8::try_from(length.len()).unwrap_or(u8::MAX));
            der.extend(length);
        }
    }
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_they_are_read() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let der = element(SEQUENCE, &content);
            assert_eq!(content_of(&der), Some(&content[..]), "{length}");
            assert_eq!(first(&[&der[..], &[1]].concat()), Some(&der[..]), "{length}");
        }
        assert_eq!(content_of(&[SEQUENCE, 5, 0]), None);
    }
}
