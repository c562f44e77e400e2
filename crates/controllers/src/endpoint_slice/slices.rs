//! Fits endpoints into slices of bounded size, changing as few slices as possible: shared by the
//! endpointslice controller and the mirroring one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api::annotations::ENDPOINTS_LAST_CHANGE;
use api::labels::{MANAGED_BY, SERVICE_NAME};
use client::{Client, ClientError, DeleteOptions, Outcome};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use meta::ObjectKey;
use prometheus::IntCounterVec;

/// Endpoints per slice: upstream `--max-endpoints-per-slice`.
const ENDPOINTS_MAX: usize = 100;

/// The family of the addresses in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AddressType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl AddressType {
    /// The family of an address.
    pub(crate) fn of(ip: &str) -> Self {
        if ip.contains(':') { Self::Ipv6 } else { Self::Ipv4 }
    }

    /// As slices name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// Endpoints with the same ports.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) family: AddressType,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What the slices are made for, and what they carry beside endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) trigger: Option<String>,
    pub(crate) owner: OwnerReference,
}

/// What to write.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<String>,
    pub(crate) tally: Tally,
}

impl Plan {
    /// Slices that it changes.
    pub(crate) fn changes(&self) -> usize {
        self.create.len() + self.update.len() + self.delete.len()
    }

    /// The slices of a family that it creates or updates.
    pub(crate) fn written(
        &mut self,
        family: AddressType,
    ) -> impl Iterator<Item = &mut EndpointSlice> {
        let slices = self.create.iter_mut().chain(&mut self.update);
        slices.filter(move |slice| slice.address_type == family.as_str())
    }

    /// Those that it leaves as they are.
    pub(crate) fn untouched<'a>(
        &self,
        family: AddressType,
        present: &'a [Arc<EndpointSlice>],
    ) -> Vec<&'a EndpointSlice> {
        let updated = self.update.iter().filter_map(|slice| slice.metadata.name.as_ref());
        let touched: HashSet<&String> = updated.chain(&self.delete).collect();
        let is_untouched = |slice: &&EndpointSlice| {
            slice.address_type == family.as_str()
                && slice.metadata.name.as_ref().is_some_and(|name| !touched.contains(name))
        };
        present.iter().map(|slice| &**slice).filter(is_untouched).collect()
    }

    /// Has a slice updated that need not be for its endpoints.
    pub(crate) fn touch(&mut self, parent: &Parent, slice: &EndpointSlice) {
        let mut slice = slice.clone();
        annotate(parent, &mut slice.metadata);
        self.update.push(slice);
    }
}

/// What metrics say of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) added: usize,
    pub(crate) updated: usize,
    pub(crate) removed: usize,
    /// Endpoints that should be.
    pub(crate) endpoints: usize,
    /// Slices that there will be.
    pub(crate) slices: usize,
    /// Slices that there would be if all were full.
    pub(crate) desired: usize,
}

/// The service that a slice of this manager belongs to.
pub(crate) fn service_of(slice: &EndpointSlice, manager: &str) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY).map(String::as_str) != Some(manager) {
        return None;
    }
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    labels.get(SERVICE_NAME).map(|name| ObjectKey::new(namespace, name))
}

/// Writes what is planned, and counts what is written.
pub(crate) async fn write(
    client: &Client,
    changes: &IntCounterVec,
    namespace: &str,
    plan: &Plan,
) -> Result<Outcome, ClientError> {
    let api = client.api::<EndpointSlice>(namespace);
    let count = |operation: &str| changes.with_label_values(&[operation]).inc();
    for slice in &plan.create {
        match api.create(slice).await {
            Ok(_) => count("create"),
            Err(error) if error.is_namespace_terminating() => return Ok(Outcome::Done),
            Err(error) => return Err(error),
        }
    }
    for slice in &plan.update {
        match api.update(slice).await {
            Ok(_) => count("update"),
            // The cache is behind.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                return Ok(Outcome::Requeue);
            }
            Err(error) => return Err(error),
        }
    }
    for name in &plan.delete {
        match api.delete(name, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => return Err(error),
            Err(_) => {}
            Ok(()) => count("delete"),
        }
    }
    Ok(Outcome::Done)
}

/// Every wanted endpoint stays in the slice it is in; new ones fill slices that are changed anyway,
/// then the fullest others, then new slices. A service without endpoints keeps one empty slice.
pub(crate) fn plan(
    parent: &Parent,
    families: &[AddressType],
    mut groups: Vec<Group>,
    present: &[Arc<EndpointSlice>],
) -> Plan {
    for family in families {
        if !groups.iter().any(|group| group.family == *family) {
            let (family, ports, endpoints) = (*family, Vec::new(), Vec::new());
            groups.push(Group { family, ports, endpoints });
        }
    }
    let mut plan = Plan::default();
    let mut used = vec![false; present.len()];
    for group in &mut groups {
        let own: Vec<usize> =
            (0..present.len()).filter(|at| !used[*at] && fits(&present[*at], group)).collect();
        own.iter().for_each(|at| used[*at] = true);
        plan_group(parent, group, own.iter().map(|at| &*present[*at]).collect(), &mut plan);
    }
    let unused = present.iter().zip(&used).filter(|(_, used)| !**used).map(|(slice, _)| slice);
    for slice in unused {
        plan.tally.removed += slice.endpoints.as_ref().map_or(0, Vec::len);
        plan.delete.extend(slice.metadata.name.clone());
    }
    plan.tally.slices = (present.len() + plan.create.len()).saturating_sub(plan.delete.len());
    if !groups.is_empty() {
        // One stays empty if nothing is in it.
        plan.tally.desired = plan.tally.desired.max(1);
    }
    plan
}

/// Leaves endpoints the hints that they have, for those who work hints out last.
pub(crate) fn keep_hints(groups: &mut [Group], present: &[Arc<EndpointSlice>]) {
    let endpoints = present.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let hints: HashMap<String, _> =
        endpoints.map(|endpoint| (identity(endpoint), &endpoint.hints)).collect();
    for endpoint in groups.iter_mut().flat_map(|group| &mut group.endpoints) {
        endpoint.hints = hints.get(&identity(endpoint)).copied().cloned().flatten();
    }
}

fn fits(slice: &EndpointSlice, group: &Group) -> bool {
    slice.address_type == group.family.as_str()
        && slice.metadata.deletion_timestamp.is_none()
        && slice.ports.as_deref().unwrap_or_default() == group.ports
}

struct Kept<'a> {
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn plan_group(parent: &Parent, group: &mut Group, own: Vec<&EndpointSlice>, plan: &mut Plan) {
    let mut wanted: BTreeMap<String, Endpoint> =
        group.endpoints.drain(..).map(|endpoint| (identity(&endpoint), endpoint)).collect();
    plan.tally.endpoints += wanted.len();
    plan.tally.desired += wanted.len().div_ceil(ENDPOINTS_MAX);
    let tally = &mut plan.tally;
    let mut kept: Vec<Kept<'_>> =
        own.into_iter().map(|slice| keep(slice, &mut wanted, tally)).collect();
    tally.added += wanted.len();
    let mut rest: Vec<Endpoint> = wanted.into_values().collect();
    // Slices that are written anyway come first, then the fullest.
    kept.sort_by_key(|kept| (!kept.changed, std::cmp::Reverse(kept.endpoints.len())));
    for kept in &mut kept {
        let room = ENDPOINTS_MAX.saturating_sub(kept.endpoints.len());
        let take = room.min(rest.len());
        kept.changed |= take > 0;
        kept.endpoints.extend(rest.drain(..take));
    }
    let is_empty = kept.is_empty() && rest.is_empty();
    for chunk in rest.chunks(ENDPOINTS_MAX) {
        plan.create.push(new_slice(parent, group, chunk.to_vec()));
    }
    if is_empty {
        plan.create.push(new_slice(parent, group, Vec::new()));
    }
    let mut alone = !plan.create.iter().any(|slice| slice.address_type == group.family.as_str());
    let any_left = kept.iter().any(|kept| !kept.endpoints.is_empty());
    for kept in kept {
        if kept.endpoints.is_empty() {
            if any_left || !alone {
                plan.delete.extend(kept.slice.metadata.name.clone());
                continue;
            }
            // The only one stays, empty.
            alone = false;
        }
        plan_kept(parent, kept, plan);
    }
}

fn plan_kept(parent: &Parent, kept: Kept<'_>, plan: &mut Plan) {
    let meta = &kept.slice.metadata;
    let relabeled = meta.labels.as_ref() != Some(&parent.labels);
    let owned = meta.owner_references.iter().flatten().any(|owner| owner.uid == parent.owner.uid);
    if !kept.changed && !relabeled && owned {
        return;
    }
    let mut slice = kept.slice.clone();
    slice.endpoints = Some(kept.endpoints);
    slice.metadata.labels = Some(parent.labels.clone());
    if !owned {
        slice.metadata.owner_references = Some(vec![parent.owner.clone()]);
    }
    annotate(parent, &mut slice.metadata);
    plan.update.push(slice);
}

fn keep<'a>(
    slice: &'a EndpointSlice,
    wanted: &mut BTreeMap<String, Endpoint>,
    tally: &mut Tally,
) -> Kept<'a> {
    let mut endpoints = Vec::new();
    let before = (tally.updated, tally.removed);
    for present in slice.endpoints.iter().flatten() {
        match wanted.remove(&identity(present)) {
            Some(endpoint) => {
                tally.updated += usize::from(endpoint != *present);
                endpoints.push(endpoint);
            }
            None => tally.removed += 1,
        }
    }
    Kept { slice, endpoints, changed: before != (tally.updated, tally.removed) }
}

/// The same endpoint: the same object behind the same addresses.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    format!("{}/{}", endpoint.addresses.join(","), uid.unwrap_or_default())
}

fn new_slice(parent: &Parent, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut metadata = ObjectMeta {
        generate_name: Some(format!("{}-", parent.name)),
        namespace: Some(parent.namespace.clone()),
        labels: Some(parent.labels.clone()),
        owner_references: Some(vec![parent.owner.clone()]),
        ..ObjectMeta::default()
    };
    annotate(parent, &mut metadata);
    EndpointSlice {
        metadata,
        address_type: group.family.as_str().to_owned(),
        endpoints: Some(endpoints),
        ports: Some(group.ports.clone()),
    }
}

fn annotate(parent: &Parent, metadata: &mut ObjectMeta) {
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.extend(parent.annotations.clone());
    match &parent.trigger {
        Some(time) => drop(annotations.insert(ENDPOINTS_LAST_CHANGE.to_owned(), time.clone())),
        None => drop(annotations.remove(ENDPOINTS_LAST_CHANGE)),
    }
    if annotations.is_empty() {
        metadata.annotations = None;
    }
}
