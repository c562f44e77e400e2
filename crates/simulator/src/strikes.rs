//! What goes wrong for somebody in particular: luck alone would hardly ever hit those who ask for
//! little.
//!
//! The seed says whom, so that seeds that follow each other go through all controllers and faults.

use crate::accounts::ACCOUNTS;

/// How many requests or events may pass before one is hit: mostly none, as some ask only once.
const PASSED: [u64; 6] = [0, 0, 0, 0, 1, 2];
/// How many are meant in a run.
const STRIKES: u64 = 3;

/// What can be meant for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    Lost,
    Busy,
    Unanswered,
    Conflict,
    /// The program dies during a request.
    Dies,
    /// The program loses its lease during a request.
    Deposed,
    /// An event is late.
    Late,
    WatchEnds,
    WatchExpires,
}

const BLOWS: [Blow; 9] = [
    Blow::Deposed,
    Blow::Lost,
    Blow::Busy,
    Blow::Unanswered,
    Blow::Conflict,
    Blow::Dies,
    Blow::Late,
    Blow::WatchEnds,
    Blow::WatchExpires,
];

/// What is still to come.
#[derive(Debug, Default)]
pub(crate) struct Strikes(Vec<Strike>);

#[derive(Debug)]
struct Strike {
    /// An account, or a collection.
    whom: &'static str,
    blow: Blow,
    /// How many more pass.
    passes: u64,
}

impl Strikes {
    /// Those of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let strike = |number: u64| {
            let pairs = ACCOUNTS.len() * BLOWS.len();
            let number = seed.wrapping_mul(STRIKES).wrapping_add(number);
            let round = usize::try_from(number % u64::try_from(pairs).unwrap_or(1)).unwrap_or(0);
            let (account, collections) = ACCOUNTS[round / BLOWS.len()];
            let blow = BLOWS[round % BLOWS.len()];
            let is_watched = [Blow::Late, Blow::WatchEnds, Blow::WatchExpires].contains(&blow);
            let of = crate::dice::mix(number);
            let watched = usize::try_from(of).unwrap_or(0).checked_rem(collections.len());
            let whom = match watched.filter(|_| is_watched) {
                Some(number) => collections[number],
                None => account,
            };
            let passes = usize::try_from(of / 7).unwrap_or(0) % PASSED.len();
            Strike { whom, blow, passes: PASSED[passes] }
        };
        Self((0..STRIKES).map(strike).collect())
    }

    /// Whether somebody is to lose its lease.
    pub(crate) fn need_rivals(&self) -> bool {
        self.0.iter().any(|strike| strike.blow == Blow::Deposed)
    }

    /// What hits somebody now, of what can.
    pub(crate) fn next(&mut self, whom: &str, fits: impl Fn(Blow) -> bool) -> Option<Blow> {
        let at = self.0.iter().position(|strike| strike.whom == whom && fits(strike.blow))?;
        match self.0[at].passes.checked_sub(1) {
            Some(left) => {
                self.0[at].passes = left;
                None
            }
            None => Some(self.0.remove(at).blow),
        }
    }

    /// Nothing more comes.
    pub(crate) fn end(&mut self) {
        self.0.clear();
    }
}
