//! Netlink attributes: length, type, value, padded to four bytes.

const NESTED: u16 = 1 << 15;

/// Bytes of attributes under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn value(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = 4 + value.len();
        // An attribute's length field has 16 bits; callers split element lists well below that.
        let length = u16::try_from(length).expect("attributes stay below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.value(kind, &[value])
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.value(kind, &value.to_be_bytes())
    }

    pub(super) fn i32(&mut self, kind: u16, value: i32) -> &mut Self {
        self.value(kind, &value.to_be_bytes())
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.value(kind, &value.to_be_bytes())
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.value(kind, &bytes)
    }

    pub(super) fn nested(&mut self, kind: u16, inner: &Self) -> &mut Self {
        self.value(kind | NESTED, &inner.0)
    }

    /// Appends attributes that are already encoded.
    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }
}

/// Reads the top level of encoded attributes: type without flags, and value.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let [l0, l1, k0, k1, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes([k0, k1]) & 0x3fff, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let mut attributes = Attributes::default();
        attributes.text(1, "ab").u32(2, 7).nested(3, &Attributes::default().u8(1, 9).clone());
        assert_eq!(attributes.len() % 4, 0);
        let parsed = parse(attributes.bytes());
        assert_eq!(parsed[0], (1, &b"ab\0"[..]));
        assert_eq!(parsed[1], (2, &[0, 0, 0, 7][..]));
        assert_eq!(parse(parsed[2].1), [(1, &[9][..])]);
    }

    #[test]
    fn truncated_attributes_end_the_list() {
        assert!(parse(&[9, 0, 1, 0, 1]).is_empty());
        assert!(parse(&[0, 0, 0, 0]).is_empty());
    }
}
