//! How a component learns that it should end.

use tokio_util::sync::CancellationToken;

/// Cloned into every component; resolves once, for all of them, when the process should end.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A signal that has not been given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal. Repeating it changes nothing.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether the signal has been given.
    pub fn is_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when the signal is given. Safe to drop and to call again.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// A signal that is given with this one, and can also be given alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}
