//! Component tests: the scheduler on an API in memory.

#[cfg(test)]
mod driver;
/// The one double of the API that the control layer's tests share.
#[cfg(test)]
#[expect(dead_code, reason = "the scheduler's tests need less of it")]
#[path = "../../../controllers/tests/it/memory_api.rs"]
mod memory_api;
