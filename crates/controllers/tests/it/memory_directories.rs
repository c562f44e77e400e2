//! The directories of a host that is not there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use controllers::HostDirectories;
use futures::future::BoxFuture;

/// The directories. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct MemoryDirectories {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    there: BTreeSet<PathBuf>,
    stay: bool,
}

impl MemoryDirectories {
    /// Those that there are.
    pub(crate) fn list(&self) -> Vec<PathBuf> {
        self.lock().there.iter().cloned().collect()
    }

    /// From now on none can be removed.
    pub(crate) fn stay(&self) {
        self.lock().stay = true;
    }

    /// From now on they can be removed again.
    pub(crate) fn go(&self) {
        self.lock().stay = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostDirectories for MemoryDirectories {
    fn make<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.lock().there.insert(path.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        let mut state = self.lock();
        if state.stay {
            // EBUSY.
            return Box::pin(async { Err(io::Error::from_raw_os_error(16)) });
        }
        state.there.remove(path);
        Box::pin(async { Ok(()) })
    }
}
