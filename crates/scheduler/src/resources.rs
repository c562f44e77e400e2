//! Amounts as integers, because every filter of every node compares them.

use std::collections::BTreeMap;

use api::resources::ResourceList;

/// Amounts of the resources that the scheduler accounts for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths.
    pub milli_cpu: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of local storage.
    pub ephemeral_storage: i64,
    /// Huge pages and extended resources, by name.
    pub scalar: BTreeMap<Box<str>, i64>,
}

impl From<&ResourceList> for Resources {
    fn from(list: &ResourceList) -> Self {
        let mut resources = Self::default();
        for (name, amount) in list {
            match name.as_str() {
                "cpu" => resources.milli_cpu = amount.milli_value(),
                "memory" => resources.memory = amount.value(),
                "ephemeral-storage" => resources.ephemeral_storage = amount.value(),
                // Counted by the node, not asked for by pods.
                "pods" => {}
                name => {
                    resources.scalar.insert(name.into(), amount.value());
                }
            }
        }
        resources
    }
}

impl Resources {
    /// Adds `more`.
    pub fn add(&mut self, more: &Self) {
        self.milli_cpu += more.milli_cpu;
        self.memory += more.memory;
        self.ephemeral_storage += more.ephemeral_storage;
        for (name, amount) in &more.scalar {
            *self.scalar.entry(name.clone()).or_default() += amount;
        }
    }

    /// Takes `less` away.
    pub fn subtract(&mut self, less: &Self) {
        self.milli_cpu -= less.milli_cpu;
        self.memory -= less.memory;
        self.ephemeral_storage -= less.ephemeral_storage;
        for (name, amount) in &less.scalar {
            *self.scalar.entry(name.clone()).or_default() -= amount;
        }
    }
}
