//! The pure core: from the slices of pools and the claims for devices, what a request is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use k8s_openapi::api::resource::v1alpha3::{
    PoolStatus, ResourcePoolStatusRequest, ResourcePoolStatusRequestSpec,
    ResourcePoolStatusRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Pools of an answer where the request names no limit: upstream's default.
const LIMIT: i32 = 100;
/// Bytes of the text about a pool: the API takes no more.
const TEXT_BYTES_MAX: usize = 256;
/// How long answers are kept, and requests that have none.
const ANSWERED_MAX: SignedDuration = SignedDuration::from_hours(1);
const PENDING_MAX: SignedDuration = SignedDuration::from_hours(24);

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";

/// A part of a pool, reduced to what is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolSlice {
    pub(super) driver: String,
    pool: String,
    node: Option<String>,
    generation: i64,
    /// Slices that the pool has at this generation.
    slices: i64,
    devices: i32,
}

impl PoolSlice {
    /// Reduces a slice.
    pub(super) fn of(slice: &ResourceSlice) -> Self {
        let spec = &slice.spec;
        Self {
            driver: spec.driver.clone(),
            pool: spec.pool.name.clone(),
            node: spec.node_name.clone(),
            generation: spec.pool.generation,
            slices: spec.pool.resource_slice_count,
            devices: count(spec.devices.as_ref().map_or(0, Vec::len)),
        }
    }
}

/// What a request is told. Of each pool the newest generation counts.
pub(super) fn answer(
    spec: &ResourcePoolStatusRequestSpec,
    slices: &[Arc<PoolSlice>],
    claims: &[Arc<ResourceClaim>],
    now: Timestamp,
) -> ResourcePoolStatusRequestStatus {
    let mut pools: BTreeMap<&str, Vec<&PoolSlice>> = BTreeMap::new();
    let is_meant = |slice: &&Arc<PoolSlice>| {
        let is_named = spec.pool_name.as_ref().is_none_or(|name| *name == slice.pool);
        slice.driver == spec.driver && is_named
    };
    for slice in slices.iter().filter(is_meant) {
        let parts = pools.entry(&slice.pool).or_default();
        let newest = parts.first().map_or(slice.generation, |part| part.generation);
        if slice.generation > newest {
            parts.clear();
        }
        if slice.generation >= newest {
            parts.push(slice);
        }
    }
    let taken = taken(&spec.driver, claims);
    let status = |(name, parts): (&&str, &Vec<&PoolSlice>)| {
        pool(parts, taken.get(*name).copied().unwrap_or(0))
    };
    let limit = usize::try_from(spec.limit.unwrap_or(LIMIT)).unwrap_or(0);
    let told: Vec<PoolStatus> = pools.iter().map(status).take(limit).collect();
    let broken = told.iter().filter(|pool| pool.validation_error.is_some()).count();
    let mut message = format!("Calculated status for {} pools", told.len());
    if broken > 0 {
        message = format!("{message} ({broken} incomplete)");
    }
    ResourcePoolStatusRequestStatus {
        pool_count: count(pools.len()),
        pools: Some(told),
        conditions: Some(vec![Condition {
            type_: COMPLETE.to_owned(),
            status: "True".to_owned(),
            reason: "CalculationComplete".to_owned(),
            message,
            last_transition_time: Time(now),
            observed_generation: None,
        }]),
    }
}

/// Whether all pools of an answer are published in whole.
pub(super) fn is_whole(status: &ResourcePoolStatusRequestStatus) -> bool {
    status.pools.iter().flatten().all(|pool| pool.validation_error.is_none())
}

/// How long a request is kept from now: nothing is left when its time is over.
pub(super) fn left(request: &ResourcePoolStatusRequest, now: Timestamp) -> SignedDuration {
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let (since, max) = match &request.status {
        None => (created, PENDING_MAX),
        Some(status) => {
            let mut conditions = status.conditions.iter().flatten();
            let end = conditions.find(|one| one.type_ == COMPLETE || one.type_ == FAILED);
            (end.map_or(created, |end| end.last_transition_time.0), ANSWERED_MAX)
        }
    };
    (since + max).duration_since(now).max(SignedDuration::ZERO)
}

/// Devices of a driver's pools that claims have.
fn taken<'a>(driver: &str, claims: &'a [Arc<ResourceClaim>]) -> BTreeMap<&'a str, i32> {
    let mut taken = BTreeMap::new();
    for claim in claims {
        let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
        let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
        for result in devices.iter().flat_map(|devices| devices.results.iter().flatten()) {
            if result.driver == driver {
                *taken.entry(result.pool.as_str()).or_insert(0) += 1;
            }
        }
    }
    taken
}

/// What is told of a pool by its parts, of which there is at least one.
fn pool(parts: &[&PoolSlice], taken: i32) -> PoolStatus {
    let Some(first) = parts.first() else { return PoolStatus::default() };
    let node = first.node.clone().filter(|_| parts.iter().all(|part| part.node == first.node));
    let mut told = PoolStatus {
        driver: first.driver.clone(),
        pool_name: first.pool.clone(),
        generation: first.generation,
        node_name: node.filter(|name| !name.is_empty()),
        ..PoolStatus::default()
    };
    if i64::try_from(parts.len()).unwrap_or(i64::MAX) < first.slices {
        let mut text = format!(
            "pool {}/{} is incomplete: observed {}/{} slices at generation {}",
            first.driver,
            first.pool,
            parts.len(),
            first.slices,
            first.generation
        );
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        told.validation_error = Some(text);
        return told;
    }
    let total: i32 = parts.iter().map(|part| part.devices).sum();
    told.resource_slice_count = Some(count(parts.len()));
    told.total_devices = Some(total);
    told.allocated_devices = Some(taken);
    told.available_devices = Some((total - taken).max(0));
    // Upstream 1.36 does not look at taints here.
    told.unavailable_devices = Some(0);
    told
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn slice(
        pool: &str,
        generation: i64,
        slices: i64,
        devices: usize,
        node: &str,
    ) -> Arc<PoolSlice> {
        let devices: Vec<_> = (0..devices).map(|at| json!({ "name": at.to_string() })).collect();
        let slice = json!({ "metadata": {}, "spec": { "driver": "d", "nodeName": node,
            "devices": devices, "pool": { "name": pool, "generation": generation,
                "resourceSliceCount": slices } } });
        Arc::new(PoolSlice::of(&serde_json::from_value(slice).unwrap()))
    }

    fn claim(driver: &str, pool: &str) -> Arc<ResourceClaim> {
        let result = json!({ "request": "r", "driver": driver, "pool": pool, "device": "0" });
        let status = json!({ "allocation": { "devices": { "results": [result] } } });
        let claim = json!({ "metadata": {}, "spec": {}, "status": status });
        Arc::new(serde_json::from_value(claim).unwrap())
    }

    fn told(spec: Value, slices: &[Arc<PoolSlice>], claims: &[Arc<ResourceClaim>]) -> Value {
        let mut spec = spec;
        spec["driver"] = "d".into();
        let spec = serde_json::from_value(spec).unwrap();
        serde_json::to_value(answer(&spec, slices, claims, NOW.parse().unwrap())).unwrap()
    }

    #[test]
    fn devices_of_the_newest_generation_are_counted() {
        let slices = [slice("p", 1, 1, 9, "n"), slice("p", 2, 2, 3, "n"), slice("p", 2, 2, 2, "n")];
        let claims = [claim("d", "p"), claim("d", "q"), claim("e", "p")];
        let told = told(json!({}), &slices, &claims);
        let pool = json!({ "driver": "d", "poolName": "p", "generation": 2, "nodeName": "n",
            "resourceSliceCount": 2, "totalDevices": 5, "allocatedDevices": 1,
            "availableDevices": 4, "unavailableDevices": 0 });
        let condition = json!({ "type": "Complete", "status": "True", "lastTransitionTime": NOW,
            "reason": "CalculationComplete", "message": "Calculated status for 1 pools" });
        assert_eq!(told, json!({ "poolCount": 1, "pools": [pool], "conditions": [condition] }));
    }

    #[test]
    fn a_pool_that_is_not_there_in_whole_is_told_so() {
        let slices = [slice("p", 2, 3, 1, "n"), slice("p", 2, 3, 1, "m"), slice("q", 1, 1, 1, "")];
        let status = told(json!({}), &slices, &[]);
        let text = "pool d/p is incomplete: observed 2/3 slices at generation 2";
        let broken = json!({ "driver": "d", "poolName": "p", "generation": 2,
            "validationError": text });
        assert_eq!(status["pools"][0], broken);
        assert_eq!(status["pools"][1]["nodeName"], Value::Null);
        let message = &status["conditions"][0]["message"];
        assert_eq!(message, "Calculated status for 2 pools (1 incomplete)");
        assert!(!is_whole(&serde_json::from_value(status).unwrap()));
        let long = "p".repeat(300);
        let status = told(json!({}), &[slice(&long, 1, 2, 1, "n")], &[]);
        assert_eq!(status["pools"][0]["validationError"].as_str().unwrap().len(), 256);
    }

    #[test]
    fn a_request_may_ask_for_one_pool_or_for_few() {
        let slices = ["a", "b", "c"].map(|pool| slice(pool, 1, 1, 1, "n"));
        let names = |told: &Value| {
            let pools = told["pools"].as_array().unwrap().iter();
            pools.map(|pool| pool["poolName"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let few = told(json!({ "limit": 2 }), &slices, &[]);
        assert_eq!(
            (names(&few), few["poolCount"].as_i64()),
            (vec!["a".into(), "b".into()], Some(3))
        );
        let one = told(json!({ "poolName": "b" }), &slices, &[]);
        assert_eq!((names(&one), one["poolCount"].as_i64()), (vec!["b".into()], Some(1)));
        assert_eq!(told(json!({ "poolName": "x" }), &slices, &[])["poolCount"], 0);
    }

    #[test]
    fn requests_go_after_an_hour_or_a_day() {
        let request = |status: Value| -> ResourcePoolStatusRequest {
            serde_json::from_value(json!({ "metadata": { "creationTimestamp": NOW },
                "spec": { "driver": "d" }, "status": status }))
            .unwrap()
        };
        let at =
            |minutes: i64| NOW.parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes);
        let pending = request(Value::Null);
        assert_eq!(left(&pending, at(60)), SignedDuration::from_hours(23));
        assert_eq!(left(&pending, at(24 * 60)), SignedDuration::ZERO);
        let answered = told(json!({}), &[], &[]);
        assert_eq!(left(&request(answered.clone()), at(45)), SignedDuration::from_mins(15));
        assert_eq!(left(&request(answered), at(61)), SignedDuration::ZERO);
        let odd = request(json!({ "poolCount": 0 }));
        assert_eq!(left(&odd, at(30)), SignedDuration::from_mins(30));
    }
}
