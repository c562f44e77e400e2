//! Volumes and claims as the scheduler knows them, and those that it has given away but not yet
//! seen bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::volumes;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use meta::{LabelSelector, ObjectKey, Quantity};

/// What is known.
#[derive(Debug, Default)]
pub struct Volumes {
    /// Claims.
    pub claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// Classes by name.
    pub classes: HashMap<String, Arc<StorageClass>>,
    /// Drivers by name.
    pub drivers: HashMap<String, Arc<CSIDriver>>,
    /// How much can be made, by namespace and name of the object that says so.
    pub capacities: HashMap<ObjectKey, Capacity>,
    /// How many volumes of each driver a node may have.
    pub limits: HashMap<String, BTreeMap<String, i64>>,
    /// What is attached to a node: driver and volume, by name of the attachment.
    pub attachments: HashMap<String, BTreeMap<String, (String, String)>>,
    /// The nodes of attachments.
    attached_to: HashMap<String, String>,
    /// Volumes that decisions gave to claims.
    given: HashMap<String, ObjectKey>,
    /// Nodes on which decisions had claims provisioned.
    chosen: HashMap<ObjectKey, String>,
}

/// How large a volume of a class can be made somewhere.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// The class.
    pub class: String,
    /// The nodes.
    pub nodes: LabelSelector,
    /// The size; unknown ones do for nothing.
    pub size: Option<Quantity>,
}

/// What has to be done for the claims of a pod before it can be bound to a node.
#[derive(Clone, Debug, Default)]
pub struct VolumePlan {
    /// Claims and the volumes they get.
    pub matched: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>)>,
    /// Claims for which a volume is made.
    pub provision: Vec<Arc<PersistentVolumeClaim>>,
}

impl VolumePlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.matched.is_empty() && self.provision.is_empty()
    }

    /// The keys of all its claims.
    pub fn claims(&self) -> impl Iterator<Item = ObjectKey> {
        let matched = self.matched.iter().map(|(claim, _)| claim);
        matched.chain(&self.provision).map(|claim| key_of(claim))
    }
}

impl Volumes {
    /// Volumes of a class that no other claim has or was given.
    pub fn free(&self, class: &str, claim: &ObjectKey) -> Vec<Arc<PersistentVolume>> {
        let is_free = |(name, volume): &(&String, &Arc<PersistentVolume>)| {
            volumes::class_of_volume(volume) == class
                && self.given.get(*name).is_none_or(|given| given == claim)
        };
        self.volumes.iter().filter(is_free).map(|(_, volume)| Arc::clone(volume)).collect()
    }

    /// What can be made for a claim of a class, if its driver says that.
    pub fn capacities_of(&self, class: &StorageClass) -> Option<Vec<Capacity>> {
        let driver = self.drivers.get(&class.provisioner)?;
        if driver.spec.storage_capacity != Some(true) {
            return None;
        }
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let of_class = self.capacities.values().filter(|one| one.class == name);
        Some(of_class.cloned().collect())
    }

    /// The driver of a claim's volume, and the volume's name; of one that has to be made yet, a name
    /// that no other has.
    pub fn driver_of(&self, key: &ObjectKey) -> Option<(String, String)> {
        let claim = self.claims.get(key)?;
        let name = volumes::volume_name(claim);
        if !name.is_empty() {
            let volume = self.volumes.get(name)?;
            let csi = volume.spec.as_ref()?.csi.as_ref()?;
            return Some((csi.driver.clone(), name.to_owned()));
        }
        let class = self.classes.get(volumes::class_of_claim(claim))?;
        Some((class.provisioner.clone(), format!(" {key}")))
    }

    /// The node that a decision, or the claim itself, names for it.
    pub fn node_of<'a>(&'a self, claim: &'a PersistentVolumeClaim) -> Option<&'a str> {
        let annotations = claim.metadata.annotations.as_ref();
        let named = volumes::annotation(annotations, volumes::SELECTED_NODE);
        named.or_else(|| self.chosen.get(&key_of(claim)).map(String::as_str))
    }

    /// Keeps what a plan takes from other decisions.
    pub fn assume(&mut self, plan: &VolumePlan, node: &str) {
        for (claim, volume) in &plan.matched {
            let name = volume.metadata.name.clone().unwrap_or_default();
            self.given.insert(name, key_of(claim));
        }
        for claim in &plan.provision {
            self.chosen.insert(key_of(claim), node.to_owned());
        }
    }

    /// Takes over a volume, `None` when it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<PersistentVolume>>) {
        match volume {
            Some(volume) => {
                // What a volume says itself need not be remembered.
                if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) {
                    self.given.remove(name);
                }
                self.volumes.insert(name.to_owned(), volume);
            }
            None => {
                self.given.remove(name);
                self.volumes.remove(name);
            }
        }
    }

    /// Takes over an attachment, as node, driver and name of the volume; `None` when it is gone.
    pub fn set_attachment(&mut self, name: &str, found: Option<&(String, String, String)>) {
        if let Some(node) = self.attached_to.remove(name)
            && let Some(attached) = self.attachments.get_mut(&node)
        {
            attached.remove(name);
            if attached.is_empty() {
                self.attachments.remove(&node);
            }
        }
        if let Some((node, driver, volume)) = found {
            self.attached_to.insert(name.to_owned(), node.clone());
            let attached = self.attachments.entry(node.clone()).or_default();
            attached.insert(name.to_owned(), (driver.clone(), volume.clone()));
        }
    }

    /// All claims of a plan are bound: they speak for themselves.
    pub fn settled(&mut self, plan: &VolumePlan) {
        for claim in &plan.provision {
            self.chosen.remove(&key_of(claim));
        }
    }

    /// Gives back what a plan took and did not get.
    pub fn forget(&mut self, plan: &VolumePlan) {
        for (claim, volume) in &plan.matched {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            if self.given.get(name) == Some(&key_of(claim)) {
                self.given.remove(name);
            }
        }
        for claim in &plan.provision {
            self.chosen.remove(&key_of(claim));
        }
    }
}

/// Namespace and name of a claim.
pub fn key_of(claim: &PersistentVolumeClaim) -> ObjectKey {
    let metadata = &claim.metadata;
    ObjectKey::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}
