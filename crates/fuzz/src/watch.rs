//! One execution under watch: panics, memory, time.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::memory;
use crate::targets::Target;

static PANIC: Mutex<Option<String>> = Mutex::new(None);
static HOOK: Once = Once::new();

thread_local! {
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// What is wrong with an execution, if anything is.
pub(crate) fn run(target: &Target, input: &[u8]) -> Option<String> {
    catch_panics();
    let problem = once(target, input)?;
    if problem.is_panic {
        return Some(problem.text);
    }
    // What is made once for all, such as tables, is charged to whoever comes first.
    (0..2).map(|_| once(target, input)).collect::<Option<Vec<_>>>()?;
    Some(problem.text)
}

struct Problem {
    is_panic: bool,
    text: String,
}

fn once(target: &Target, input: &[u8]) -> Option<Problem> {
    let (memory, begun) = (memory::begin(), now(ClockId::ThreadCPUTime));
    IS_WATCHED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    IS_WATCHED.set(false);
    let taken = now(ClockId::ThreadCPUTime).saturating_sub(begun);
    let used = memory::since(memory);
    // A panic may have been caught further down, as servers do it.
    let panicked = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    if outcome.is_err() || panicked.is_some() {
        let text = panicked.unwrap_or_else(|| "panic".to_owned());
        return Some(Problem { is_panic: true, text });
    }
    let most = target.memory_per_byte.saturating_mul(input.len()) + target.memory_base;
    if used > most {
        let text = format!("{used} bytes of memory for {} bytes of input", input.len());
        return Some(Problem { is_panic: false, text });
    }
    let nanos = target.nanos_per_byte.saturating_mul(u64::try_from(input.len()).unwrap_or(0));
    if taken > target.time_base + Duration::from_nanos(nanos) {
        let text = format!("{taken:?} for {} bytes of input", input.len());
        return Some(Problem { is_panic: false, text });
    }
    None
}

/// The time of a clock that does not go back.
pub(crate) fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(secs, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Panics of the watched thread are kept instead of printed, with their place.
fn catch_panics() {
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_WATCHED.get() {
                return usual(info);
            }
            let message = info.payload_as_str().unwrap_or("panic");
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let mut slot = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
            slot.get_or_insert_with(|| format!("{place}: {message}"));
        }));
    });
}
