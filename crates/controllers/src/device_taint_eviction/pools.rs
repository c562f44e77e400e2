//! The taints of devices by the pool that they are in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{DeviceRequestAllocationResult, ResourceSlice};

use super::Taint;

/// Driver and name of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PoolName(String, String);

impl PoolName {
    pub(super) fn has(&self, device: &DeviceRequestAllocationResult) -> bool {
        self.0 == device.driver && self.1 == device.pool
    }
}

/// A slice of a pool, reduced to the taints that evict.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SliceView {
    pool: PoolName,
    generation: i64,
    /// By device.
    taints: BTreeMap<String, Vec<Taint>>,
}

impl SliceView {
    /// Reduces a slice.
    pub(crate) fn new(slice: ResourceSlice) -> Self {
        let spec = slice.spec;
        let taints = spec.devices.into_iter().flatten().filter_map(|device| {
            let taints = device.taints.into_iter().flatten();
            let taints: Vec<_> = taints
                .filter(|taint| taint.effect == api::taints::NO_EXECUTE)
                .map(|taint| Taint {
                    key: taint.key,
                    value: taint.value.unwrap_or_default(),
                    since: taint.time_added.map(|time| time.0),
                })
                .collect();
            (!taints.is_empty()).then_some((device.name, taints))
        });
        Self {
            taints: taints.collect(),
            generation: spec.pool.generation,
            pool: PoolName(spec.driver, spec.pool.name),
        }
    }
}

/// All pools.
#[derive(Default)]
pub(super) struct Pools {
    /// Slices by pool and name.
    pools: HashMap<PoolName, BTreeMap<String, Arc<SliceView>>>,
    /// Which pool a slice is of.
    of: HashMap<String, PoolName>,
}

impl Pools {
    /// Takes over a slice, `None` when it is gone. The pools whose taints may have changed.
    pub(super) fn set(&mut self, name: &str, slice: Option<&Arc<SliceView>>) -> Vec<PoolName> {
        let before = self.of.remove(name).and_then(|pool| {
            let slices = self.pools.get_mut(&pool)?;
            let before = slices.remove(name);
            if slices.is_empty() {
                self.pools.remove(&pool);
            }
            before
        });
        if let Some(slice) = slice {
            self.of.insert(name.to_owned(), slice.pool.clone());
            let slices = self.pools.entry(slice.pool.clone()).or_default();
            slices.insert(name.to_owned(), Arc::clone(slice));
        }
        if before.as_ref() == slice {
            return Vec::new();
        }
        let mut touched: Vec<_> =
            before.iter().chain(slice).map(|slice| slice.pool.clone()).collect();
        touched.dedup();
        touched
    }

    /// The taints of a device. Slices that a newer generation of their pool has replaced say
    /// nothing any more.
    pub(super) fn taints_of(
        &self,
        device: &DeviceRequestAllocationResult,
    ) -> impl Iterator<Item = &Taint> {
        let pool = PoolName(device.driver.clone(), device.pool.clone());
        let slices = self.pools.get(&pool);
        let newest = slices.and_then(|all| all.values().map(|slice| slice.generation).max());
        let slices = slices.into_iter().flat_map(BTreeMap::values);
        let current = slices.filter(move |slice| Some(slice.generation) == newest);
        current.filter_map(|slice| slice.taints.get(&device.device)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(generation: i64, tainted: &str) -> Arc<SliceView> {
        let slice = serde_json::from_value(json!({ "spec": { "driver": "d",
            "pool": { "name": "p", "generation": generation, "resourceSliceCount": 1 },
            "devices": [{ "name": tainted, "taints": [
                { "key": "k", "effect": "NoExecute" }, { "key": "l", "effect": "NoSchedule" }] }] } }))
        .unwrap();
        Arc::new(SliceView::new(slice))
    }

    #[test]
    fn the_newest_generation_of_a_pool_counts() {
        let device = |name: &str| -> DeviceRequestAllocationResult {
            serde_json::from_value(json!({ "driver": "d", "pool": "p", "device": name,
                "request": "r" }))
            .unwrap()
        };
        let mut pools = Pools::default();
        assert_eq!(pools.set("one", Some(&slice(1, "a"))).len(), 1);
        assert_eq!(pools.taints_of(&device("a")).count(), 1, "only what evicts");
        assert!(pools.set("one", Some(&slice(1, "a"))).is_empty(), "nothing changed");
        pools.set("two", Some(&slice(2, "b")));
        assert_eq!(pools.taints_of(&device("a")).count(), 0);
        assert_eq!(pools.taints_of(&device("b")).count(), 1);
        pools.set("two", None);
        assert_eq!(pools.taints_of(&device("a")).count(), 1);
    }
}
