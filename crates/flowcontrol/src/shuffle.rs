//! Dealing a hand of queues to a flow.
//!
//! A flow always gets the same few queues, and two flows hardly ever the same ones: one that floods
//! its queues leaves most others at least one that is free.
//!
//! Upstream: `util/shufflesharding`.

/// More queues in a hand would leave too little of the hash for each.
pub(crate) const HAND_MAX: usize = 16;

/// The hash of a flow: FNV-1a, and a mix so that every bit of it depends on every other.
pub(crate) fn hash(schema: &str, distinguisher: &str) -> u64 {
    let bytes = schema.bytes().chain([0]).chain(distinguisher.bytes());
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let sum = (sum ^ (sum >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let sum = (sum ^ (sum >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    sum ^ (sum >> 31)
}

/// Calls `take` with each queue of the hand, all of them different.
pub(crate) fn deal(hash: u64, queues: usize, hand: usize, mut take: impl FnMut(usize)) {
    let hand = hand.min(queues).min(HAND_MAX);
    let mut cards = [0_usize; HAND_MAX];
    let mut rest = hash;
    for at in 0..hand {
        let left = (queues - at) as u64;
        // Of those that are left; `left` is no more than `queues`, and so is the remainder.
        let mut card = usize::try_from(rest % left).unwrap_or(0);
        rest /= left;
        // `cards` is sorted: every card dealt below moves this one up.
        let mut place = 0;
        while place < at && cards[place] <= card {
            card += 1;
            place += 1;
        }
        cards.copy_within(place..at, place + 1);
        cards[place] = card;
        take(card);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn hand(hash: u64, queues: usize, size: usize) -> Vec<usize> {
        let mut found = Vec::new();
        deal(hash, queues, size, |queue| found.push(queue));
        found
    }

    #[test]
    fn a_hand_has_different_queues_and_is_always_the_same() {
        for flow in 0..500 {
            let hash = hash("schema", &flow.to_string());
            let dealt = hand(hash, 64, 8);
            let distinct: BTreeSet<_> = dealt.iter().collect();
            assert_eq!(distinct.len(), 8);
            assert!(dealt.iter().all(|queue| *queue < 64));
            assert_eq!(dealt, hand(hash, 64, 8));
        }
        assert_eq!(hand(7, 3, 8).len(), 3);
        assert_eq!(hand(7, 1, 1), [0]);
    }

    #[test]
    fn queues_are_dealt_evenly() {
        let mut counts = [0_u32; 16];
        for flow in 0..4000 {
            deal(hash("s", &format!("user-{flow}")), 16, 4, |queue| counts[queue] += 1);
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
