//! Panics. Those in a task end the task alone, and nobody else would hear of them.

use std::sync::{Mutex, PoisonError};

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what panics say from now on.
pub(crate) fn keep() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let text = format!("{panic}").replace('\n', ": ");
        let text = format!("panic in thread {}: {text}", thread.name().unwrap_or("of the run"));
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }));
}

/// What panics said since the last time.
pub(crate) fn take() -> Vec<String> {
    std::mem::take(&mut PANICS.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_panic_said_is_kept() {
        super::keep();
        std::thread::spawn(|| panic!("as expected")).join().unwrap_err();
        let said = super::take();
        assert!(said.len() == 1 && said[0].contains("as expected"), "{said:?}");
        assert!(super::take().is_empty());
    }
}
