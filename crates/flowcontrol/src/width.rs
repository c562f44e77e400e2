//! How many seats a request takes.
//!
//! Upstream: `util/flowcontrol/request`.

use std::time::Duration;

/// Bytes of a list that make a seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list is sent from shared bytes: more of it than this is not made at once.
const LIST_BYTES_MAX: u64 = 1_000_000;
/// Seats of a list at most, whatever the level.
const LIST_SEATS_MAX: u32 = 100;
/// Seats that a write holds for its watchers at most.
const WRITE_SEATS_MAX: u32 = 10;
/// Watchers that make a seat.
const WATCHERS_PER_SEAT: u32 = 10;
/// How long such a seat is held.
const PER_SEAT: Duration = Duration::from_millis(5);

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// While it is worked on.
    pub(crate) seats: u32,
    /// After it has been answered.
    pub(crate) after: u32,
    /// For how long.
    pub(crate) extra: Duration,
}

/// What is known of a list before it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListSize {
    /// Objects of the resource.
    pub objects: u64,
    /// Bytes of one of them.
    pub object_bytes: u64,
    /// The client's limit; 0 for none.
    pub limit: u64,
}

impl Width {
    /// What most requests take.
    pub const ONE: Self = Self { seats: 1, after: 0, extra: Duration::ZERO };

    /// A list, or a watch that begins with one.
    pub fn of_list(size: &ListSize, level_max: u32) -> Self {
        let objects = if size.limit == 0 { size.objects } else { size.objects.min(size.limit) };
        let bytes = objects.saturating_mul(size.object_bytes).min(LIST_BYTES_MAX);
        let seats = u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX);
        let max = level_max.clamp(1, LIST_SEATS_MAX);
        Self { seats: seats.clamp(1, max), ..Self::ONE }
    }

    /// A write that this many watchers hear of.
    pub fn of_write(watchers: u32, level_max: u32) -> Self {
        if watchers < WATCHERS_PER_SEAT {
            return Self::ONE;
        }
        let wanted = watchers.div_ceil(WATCHERS_PER_SEAT);
        let after = wanted.min(level_max.clamp(1, WRITE_SEATS_MAX));
        // The same work on fewer seats takes longer.
        Self { seats: 1, after, extra: PER_SEAT * wanted / after }
    }

    /// The most seats it has at any time: that many it needs to begin.
    pub(crate) fn most(&self) -> u32 {
        self.seats.max(self.after).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_seats_by_its_bytes() {
        let seats = |objects, limit, max| {
            Width::of_list(&ListSize { objects, object_bytes: 4_000, limit }, max).seats
        };
        assert_eq!(seats(0, 0, 50), 1);
        assert_eq!(seats(100, 0, 50), 4);
        assert_eq!(seats(100, 10, 50), 1);
        assert_eq!(seats(1_000_000, 0, 50), 10, "it is not made at once");
        assert_eq!(seats(1_000_000, 0, 3), 3);
    }

    #[test]
    fn a_write_holds_seats_for_its_watchers() {
        assert_eq!(Width::of_write(9, 8), Width::ONE);
        let wide = Width::of_write(100, 8);
        assert_eq!((wide.after, wide.extra), (8, Duration::from_micros(6250)));
        assert_eq!(Width::of_write(20, 8).extra, PER_SEAT);
        assert_eq!(wide.most(), 8);
    }
}
