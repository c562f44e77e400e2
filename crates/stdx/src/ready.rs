//! How a component says that it works, so that what depends on it may start.

use tokio::sync::watch;

/// The component's end: says once that it is ready.
#[derive(Debug)]
pub struct Ready(watch::Sender<bool>);

/// The other end. Clones wait for the same component.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Receiver<bool>);

/// Both ends for one component.
pub fn signal() -> (Ready, Readiness) {
    let (sender, receiver) = watch::channel(false);
    (Ready(sender), Readiness(receiver))
}

impl Ready {
    /// Says that the component is ready. Repeating it changes nothing.
    pub fn set(&self) {
        self.0.send_replace(true);
    }
}

impl Readiness {
    /// Waits; `false` when the component ended without ever being ready. Safe to drop.
    pub async fn wait(&mut self) -> bool {
        self.0.wait_for(|ready| *ready).await.is_ok()
    }

    /// Whether the component is ready now.
    pub fn is_ready(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn waiting_ends_when_the_component_is_ready_or_gone() {
        let (ready, mut readiness) = super::signal();
        ready.set();
        drop(ready);
        assert!(readiness.wait().await);
        let (gone, mut readiness) = super::signal();
        drop(gone);
        assert!(!readiness.wait().await);
    }
}
