//! Which zone each endpoint of a service is to serve when topology mode is `Auto`: every zone gets
//! as large a part of them as it has of the nodes' CPU.
//!
//! All here is pure. Slices that need not be written keep the hints that they have as long as these
//! leave each zone enough.
//!
//! Upstream: `staging/src/k8s.io/endpointslice/topologycache`, KEP-2433.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};

use super::slices::{AddressType, Parent, Plan};

/// Each zone's part of the CPU of all, of at least two zones; all together are 1.
pub(super) type Shares = BTreeMap<String, f64>;
/// How many endpoints serve each zone.
pub(super) type ByZone = BTreeMap<String, u32>;

/// By how much more than its part an endpoint may be used: upstream `overloadThreshold`.
const OVERLOAD: f64 = 0.2;

/// Why there are no hints, in the words of upstream's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// There are not two zones, or one node does not tell its own.
    #[error(
        "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
    )]
    Nodes,
    /// Fewer ready endpoints than zones.
    #[error("Insufficient number of endpoints ({ready} endpoints, {zones} zones)")]
    Few { ready: u32, zones: usize },
    /// So few that those of one zone had to bear too much.
    #[error(
        "Unable to allocate minimum required endpoints to each zone without exceeding overload \
         threshold ({ready} endpoints, {zones} zones)"
    )]
    Overload { ready: u32, zones: usize },
    /// The node of an endpoint has no zone.
    #[error("One or more endpoints do not have a zone specified")]
    NoZone,
}

/// What a zone is to have.
#[derive(Debug, PartialEq)]
struct Allocation {
    /// No fewer than leave every other zone its least.
    most: u32,
    wanted: f64,
}

/// Gives every ready endpoint of a family a zone, in slices that are written and, where it has to
/// be, in others. What comes of it is how many serve each zone; where it cannot be, no endpoint has
/// a hint afterwards.
pub(super) fn assign(
    parent: &Parent,
    family: AddressType,
    shares: Option<&Shares>,
    present: &[Arc<EndpointSlice>],
    plan: &mut Plan,
) -> Result<ByZone, Refusal> {
    let ready = ready_of(family, present, plan);
    let assigned = allocate(shares, ready).and_then(|allocations| {
        let mut by_zone = ByZone::new();
        for slice in plan.untouched(family, present) {
            match hints_that_fit(slice, &by_zone, &allocations) {
                Some(more) => more.into_iter().for_each(|(zone, count)| {
                    *by_zone.entry(zone).or_default() += count;
                }),
                None => plan.touch(parent, slice),
            }
        }
        own_zones(family, plan, &mut by_zone)?;
        let (giving, receiving) = moves(&allocations, &by_zone);
        redistribute(family, plan, giving, receiving, &mut by_zone);
        Ok(by_zone)
    });
    if assigned.is_err() {
        clear(parent, family, present, plan);
    }
    assigned
}

/// Whether there may be hints for so many ready endpoints.
pub(super) fn is_possible(shares: Option<&Shares>, ready: u32) -> bool {
    allocate(shares, ready).is_ok()
}

/// The endpoints of a family that are ready.
pub(super) fn ready_of(
    family: AddressType,
    present: &[Arc<EndpointSlice>],
    plan: &mut Plan,
) -> u32 {
    let untouched: u32 = plan.untouched(family, present).into_iter().map(ready_endpoints).sum();
    untouched + plan.written(family).map(|slice| ready_endpoints(slice)).sum::<u32>()
}

/// Whether the endpoints of a zone have to bear too much.
pub(super) fn is_overloaded(by_zone: &ByZone, shares: Option<&Shares>) -> bool {
    if by_zone.is_empty() {
        return false;
    }
    let Some(shares) = shares else { return true };
    let all: u32 = by_zone.values().sum();
    shares.iter().any(|(zone, share)| {
        by_zone.get(zone).is_none_or(|count| *count < least(*share * f64::from(all)))
    })
}

fn allocate(shares: Option<&Shares>, ready: u32) -> Result<BTreeMap<String, Allocation>, Refusal> {
    let shares = shares.ok_or(Refusal::Nodes)?;
    let zones = shares.len();
    if usize::try_from(ready).is_ok_and(|ready| ready < zones) {
        return Err(Refusal::Few { ready, zones });
    }
    let wanted = |share: &f64| share * f64::from(ready);
    let needed: u32 = shares.values().map(|share| least(wanted(share))).sum();
    let spare = ready.checked_sub(needed).ok_or(Refusal::Overload { ready, zones })?;
    let allocation = |(zone, share): (&String, &f64)| {
        let (wanted, least) = (wanted(share), least(wanted(share)));
        (zone.clone(), Allocation { most: least + spare, wanted: wanted.max(f64::from(least)) })
    };
    Ok(shares.iter().map(allocation).collect())
}

/// The fewest endpoints that can do the work of so many.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "no more than there are endpoints, and a conversion from f64 saturates"
)]
fn least(wanted: f64) -> u32 {
    (wanted * (1.0 / (1.0 + OVERLOAD))).ceil() as u32
}

/// How many endpoints of a slice serve each zone; `None` if it cannot stay as it is: since one that
/// is ready has no hint, or one for a zone that gets none, or there would be too many for one.
fn hints_that_fit(
    slice: &EndpointSlice,
    others: &ByZone,
    allocations: &BTreeMap<String, Allocation>,
) -> Option<ByZone> {
    let mut by_zone = ByZone::new();
    for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)) {
        let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
        for zone in zones.filter(|zones| !zones.is_empty())? {
            *by_zone.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &u32)| {
        let others = others.get(zone).copied().unwrap_or_default();
        allocations.get(zone).is_some_and(|allocation| count + others <= allocation.most)
    };
    by_zone.iter().all(fits).then_some(by_zone)
}

/// Has every ready endpoint of the slices that are written serve its own zone.
fn own_zones(family: AddressType, plan: &mut Plan, by_zone: &mut ByZone) -> Result<(), Refusal> {
    for slice in plan.written(family) {
        for endpoint in slice.endpoints.iter_mut().flatten() {
            endpoint.hints = None;
            if !is_ready(endpoint) {
                continue;
            }
            let zone = endpoint.zone.clone().ok_or(Refusal::NoZone)?;
            endpoint.hints = Some(hint(&zone));
            *by_zone.entry(zone).or_default() += 1;
        }
    }
    Ok(())
}

/// How many endpoints zones should give to others, and how many they should get.
fn moves(allocations: &BTreeMap<String, Allocation>, by_zone: &ByZone) -> (ByZone, ByZone) {
    let (mut surplus, mut lack) = (BTreeMap::new(), BTreeMap::new());
    for (zone, Allocation { wanted, .. }) in allocations {
        let over = f64::from(by_zone.get(zone).copied().unwrap_or_default()) - wanted;
        if over > 0.0 {
            surplus.insert(zone.as_str(), over);
        } else if over < 0.0 {
            lack.insert(zone.as_str(), -over);
        }
    }
    let (mut giving, mut receiving) = (ByZone::new(), ByZone::new());
    while let (Some((giver, give)), Some((receiver, receive))) = (most(&surplus), most(&lack)) {
        // Half an endpoint is worth no move, nor is less than a whole one on both sides.
        if (give < 1.0 && receive < 1.0) || give < 0.5 || receive < 0.5 {
            break;
        }
        for (moved, left, zone) in
            [(&mut giving, &mut surplus, giver), (&mut receiving, &mut lack, receiver)]
        {
            *moved.entry(zone.to_owned()).or_default() += 1;
            *left.entry(zone).or_default() -= 1.0;
        }
    }
    (giving, receiving)
}

/// The zone with the greatest number above zero: of equals the first by name.
fn most<'a>(zones: &BTreeMap<&'a str, f64>) -> Option<(&'a str, f64)> {
    let positive = zones.iter().filter(|(_, number)| **number > 0.0);
    let greater =
        |best: (&'a str, f64), next: (&'a str, f64)| if next.1 > best.1 { next } else { best };
    positive.map(|(zone, number)| (*zone, *number)).reduce(greater)
}

/// Has endpoints of zones that give serve those that receive.
fn redistribute(
    family: AddressType,
    plan: &mut Plan,
    mut giving: ByZone,
    mut receiving: ByZone,
    by_zone: &mut ByZone,
) {
    let slices = plan.written(family);
    for endpoint in slices.flat_map(|slice| slice.endpoints.iter_mut().flatten()) {
        let Some(giver) = endpoint.zone.clone().filter(|_| is_ready(endpoint)) else { continue };
        let Some(receiver) = receiving.keys().next().cloned() else { return };
        if !giving.contains_key(&giver) {
            continue;
        }
        endpoint.hints = Some(hint(&receiver));
        take(&mut giving, &giver);
        take(&mut receiving, &receiver);
        take(by_zone, &giver);
        *by_zone.entry(receiver).or_default() += 1;
    }
}

fn take(from: &mut ByZone, zone: &str) {
    if let Some(count) = from.get_mut(zone) {
        *count -= 1;
        if *count == 0 {
            from.remove(zone);
        }
    }
}

/// Takes all hints away.
fn clear(parent: &Parent, family: AddressType, present: &[Arc<EndpointSlice>], plan: &mut Plan) {
    for slice in plan.untouched(family, present) {
        if slice.endpoints.iter().flatten().any(|endpoint| endpoint.hints.is_some()) {
            plan.touch(parent, slice);
        }
    }
    let slices = plan.written(family);
    for endpoint in slices.flat_map(|slice| slice.endpoints.iter_mut().flatten()) {
        endpoint.hints = None;
    }
}

fn hint(zone: &str) -> EndpointHints {
    EndpointHints { for_zones: Some(vec![ForZone { name: zone.to_owned() }]), for_nodes: None }
}

fn ready_endpoints(slice: &EndpointSlice) -> u32 {
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint));
    u32::try_from(ready.count()).unwrap_or(u32::MAX)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
}

#[cfg(test)]
mod tests;
