//! Service accounts: nothing is generated for them any more; deleting answers with the object.

use super::Strategy;

pub(super) struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn resets_status(&self) -> bool {
        false
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}
