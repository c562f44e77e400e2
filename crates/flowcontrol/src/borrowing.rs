//! How many seats each level has now: what a level does not need, it lends.
//!
//! Every level has nominal seats by its shares, keeps some of them whatever happens, and may borrow
//! up to a maximum. What it gets in between goes by what it has lately wanted.
//!
//! Upstream: `util/flowcontrol/conc_alloc.go` and `apf_controller.go`, `updateBorrowing`.

use std::time::Duration;

/// How slowly a level's memory of its demand fades, per period: upstream's coefficient.
const MEMORY: f64 = 0.977;

/// The seats that are wanted at a level, over a period.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    current: u32,
    since: Duration,
    begun: Duration,
    sum: f64,
    squares: f64,
    high: u32,
}

/// What a period was like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stats {
    pub(crate) average: f64,
    pub(crate) deviation: f64,
    pub(crate) high: u32,
}

impl Demand {
    /// Nothing is wanted yet.
    pub(crate) fn new(now: Duration) -> Self {
        Self { since: now, begun: now, ..Self::default() }
    }

    /// From now on so many seats are wanted.
    pub(crate) fn set(&mut self, seats: u32, now: Duration) {
        self.pass(now);
        self.current = seats;
        self.high = self.high.max(seats);
    }

    /// Ends a period and begins the next one.
    pub(crate) fn take(&mut self, now: Duration) -> Stats {
        self.pass(now);
        let time = now.saturating_sub(self.begun).as_secs_f64();
        let stats = if time > 0.0 {
            let average = self.sum / time;
            let variance = self.squares / time - average * average;
            Stats { average, deviation: variance.max(0.0).sqrt(), high: self.high }
        } else {
            Stats { average: f64::from(self.current), deviation: 0.0, high: self.high }
        };
        (self.begun, self.sum, self.squares, self.high) = (now, 0.0, 0.0, self.current);
        stats
    }

    fn pass(&mut self, now: Duration) {
        let time = now.saturating_sub(self.since).as_secs_f64();
        let seats = f64::from(self.current);
        self.sum += seats * time;
        self.squares += seats * seats * time;
        self.since = self.since.max(now);
    }
}

/// A level's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) nominal: u32,
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Bounds {
    /// Of a level with these shares of all, in a server with this many seats.
    pub(crate) fn new(
        total: u32,
        (shares, all): (u32, u32),
        lendable: u32,
        borrowing: Option<u32>,
    ) -> Self {
        let nominal = if all == 0 { 0 } else { (total * shares).div_ceil(all) };
        let percent = |percent: u32| (u64::from(nominal) * u64::from(percent) + 50) / 100;
        let lent = u32::try_from(percent(lendable)).unwrap_or(nominal);
        let borrowed = borrowing.map(|limit| u32::try_from(percent(limit)).unwrap_or(u32::MAX));
        let max = borrowed.map_or(total, |borrowed| nominal.saturating_add(borrowed));
        Self {
            nominal,
            min: nominal.saturating_sub(lent),
            max: max.max(nominal).min(total.max(nominal)),
        }
    }
}

/// Demand as a level remembers it: up at once, down slowly.
pub(crate) fn smooth(before: f64, stats: &Stats) -> f64 {
    let envelope = (stats.average + stats.deviation).min(f64::from(stats.high));
    envelope.max(MEMORY * before + (1.0 - MEMORY) * envelope)
}

/// A level that wants seats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) bounds: Bounds,
    /// What it has lately wanted.
    pub(crate) smoothed: f64,
    /// The most it wanted in the last period.
    pub(crate) high: u32,
}

impl Claim {
    /// What it wants, and no less than it keeps.
    pub(crate) fn target(&self) -> f64 {
        self.smoothed.max(f64::from(self.bounds.min))
    }

    /// What it gets at least: its own seats, as far as it has used them.
    fn floor(&self) -> f64 {
        let Bounds { nominal, min, .. } = self.bounds;
        f64::from(min.max(nominal.min(self.high)))
    }

    fn at(&self, fraction: f64) -> f64 {
        let most = f64::from(self.bounds.max).max(self.floor());
        (fraction * self.target()).clamp(self.floor(), most)
    }
}

/// Shares seats out: every level the same fraction of what it wants, within its bounds. The
/// fraction, and the seats of each level.
pub(crate) fn allocate(total: u32, claims: &[Claim]) -> (f64, Vec<u32>) {
    let seats = f64::from(total);
    let sum = |fraction: f64| claims.iter().map(|claim| claim.at(fraction)).sum::<f64>();
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // Nobody may want anything: then more makes no difference.
    while sum(high) < seats && high < 1e6 {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if sum(middle) > seats {
            high = middle;
        } else {
            low = middle;
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and the bounds, which are of this type"
    )]
    let round = |claim: &Claim| (claim.at(low) + 1e-6).floor().max(0.0) as u32;
    (low, claims.iter().map(round).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn demand_is_weighed_by_time() {
        let mut demand = Demand::default();
        demand.set(10, secs(0));
        demand.set(0, secs(5));
        let stats = demand.take(secs(10));
        assert_eq!((stats.average, stats.deviation, stats.high), (5.0, 5.0, 10));
        let stats = demand.take(secs(20));
        assert_eq!((stats.average, stats.deviation, stats.high), (0.0, 0.0, 0));
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let busy = Stats { average: 100.0, deviation: 0.0, high: 100 };
        let idle = Stats::default();
        let mut smoothed = smooth(0.0, &busy);
        assert_eq!(smoothed, 100.0);
        smoothed = smooth(smoothed, &idle);
        assert!(smoothed > 97.0 && smoothed < 98.0);
    }

    #[test]
    fn bounds_follow_from_shares_and_percents() {
        // Upstream's suggested levels over its default of 600 seats.
        let bounds = |shares, lendable| Bounds::new(600, (shares, 245), lendable, None);
        assert_eq!(bounds(100, 90), Bounds { nominal: 245, min: 24, max: 600 });
        assert_eq!(bounds(30, 33), Bounds { nominal: 74, min: 50, max: 600 });
        let limited = Bounds::new(100, (50, 100), 0, Some(20));
        assert_eq!(limited, Bounds { nominal: 50, min: 50, max: 60 });
        assert_eq!(Bounds::new(100, (0, 0), 0, None).nominal, 0);
    }

    fn claim(nominal: u32, min: u32, wanted: u32) -> Claim {
        let bounds = Bounds { nominal, min, max: 100 };
        Claim { bounds, smoothed: f64::from(wanted), high: wanted }
    }

    #[test]
    fn idle_levels_lend_and_busy_ones_borrow() {
        let (_, seats) = allocate(100, &[claim(50, 10, 0), claim(50, 10, 90)]);
        assert_eq!(seats, [10, 90]);
        let (_, seats) = allocate(100, &[claim(50, 10, 90), claim(50, 10, 90)]);
        assert_eq!(seats, [50, 50]);
        let (_, seats) = allocate(100, &[claim(50, 10, 40), claim(50, 10, 200)]);
        assert_eq!(seats, [40, 60], "what a level uses of its own stays its own");
    }

    #[test]
    fn seats_are_never_more_than_there_are_and_nobody_is_below_his_minimum() {
        for wanted in 0..200_u32 {
            let claims =
                [claim(20, 20, wanted), claim(30, 3, wanted * 7 % 90), claim(50, 25, 200 - wanted)];
            let (_, seats) = allocate(100, &claims);
            assert!(seats.iter().sum::<u32>() <= 100, "{wanted}: {seats:?}");
            for (claim, seats) in claims.iter().zip(&seats) {
                assert!(*seats >= claim.bounds.min, "{wanted}: {seats:?}");
            }
        }
    }
}
