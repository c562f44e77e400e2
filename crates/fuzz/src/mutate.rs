//! Changes of inputs.

use crate::random::Random;

/// Inputs do not grow beyond this; decoders that go wrong do so with less.
const MAX_LEN: usize = 8 << 10;
/// Most changes at once.
const MAX_CHANGES: usize = 8;
/// Numbers at which things tend to go wrong.
const EDGES: [i64; 12] = [
    -1,
    0,
    1,
    127,
    128,
    255,
    65_535,
    i32::MAX as i64,
    i32::MIN as i64,
    4_294_967_295,
    i64::MAX,
    i64::MIN,
];

/// A few changes of an input. `other` is another input to take pieces from.
pub(crate) fn mutate(
    random: &mut Random,
    input: &[u8],
    other: &[u8],
    dictionary: &[&str],
) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(MAX_CHANGES) {
        change(random, &mut bytes, other, dictionary);
    }
    bytes.truncate(MAX_LEN);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8], dictionary: &[&str]) {
    let len = bytes.len();
    let at = random.below(len + 1);
    let most = if random.below(4) == 0 { 256 } else { 8 };
    let size = 1 + random.below(most);
    let end = len.min(at.saturating_add(size));
    match random.below(11) {
        0 if at < len => bytes[at] ^= 1 << random.below(8),
        1 if at < len => bytes[at] = random.byte(),
        2 if at < len => bytes[at] = bytes[at].wrapping_add(random.byte() % 33).wrapping_sub(16),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let piece = bytes[at..end].to_vec();
            let most = if random.below(16) == 0 { 64 } else { 2 };
            let times = 1 + random.below(most);
            insert(bytes, at, &piece.repeat(times));
        }
        5 => {
            let to = random.below(len + 1);
            let piece = bytes[at..end].to_vec();
            insert(bytes, to, &piece);
        }
        6 => {
            let from = random.below(other.len() + 1);
            let until = other.len().min(from.saturating_add(size * 4));
            insert(bytes, at, &other[from..until]);
        }
        7 => {
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        8 => {
            let number = EDGES[random.below(EDGES.len())];
            match random.below(3) {
                0 => insert(bytes, at, number.to_string().as_bytes()),
                1 => insert(bytes, at, &number.to_be_bytes()[8 - size.min(8)..]),
                _ => insert(bytes, at, &number.to_le_bytes()[..size.min(8)]),
            }
        }
        _ if !dictionary.is_empty() => {
            let word = dictionary[random.below(dictionary.len())].as_bytes();
            if random.below(2) == 0 {
                bytes.drain(at..len.min(at + word.len()));
            }
            insert(bytes, at, word);
        }
        _ => insert(bytes, at, &[random.byte()]),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if bytes.len() + piece.len() <= MAX_LEN {
        bytes.splice(at..at, piece.iter().copied());
    }
}
