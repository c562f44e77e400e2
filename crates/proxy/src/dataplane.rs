//! The nftables table of the proxy, changed by the difference of plans.

use std::collections::BTreeMap;

use meta::ObjectKey;
use netlink::NetlinkError;
use netlink::nft::{
    Element, ElementData, Family, Hook, HookKind, HookPoint, KeyField, Rule, Set, SetData,
    Transaction, Verdict, table_names,
};

use crate::plan::{
    CLUSTER_IPS, MARK_FOR_MASQUERADE, MASQUERADE_MARK, NO_ENDPOINT_IPS, NO_ENDPOINT_NODE_PORTS,
    NODE_PORTS, Plan, REJECT, RulePlan, SERVICE_IPS,
};

/// Upstream's name.
const TABLE: &str = "kube-proxy";
/// nftables' standard priorities.
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER_BEFORE_DNAT: i32 = -110;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

/// What is in the kernel.
#[derive(Default)]
pub struct Dataplane {
    plans: BTreeMap<ObjectKey, Plan>,
    /// Whether the kernel holds what `plans` says.
    in_step: bool,
}

impl Dataplane {
    /// An empty one; the first [`Dataplane::apply`] builds the table anew.
    pub fn new() -> Self {
        Self::default()
    }

    /// Brings the kernel from the former plans of these services to new ones; `None` removes a
    /// service. Blocks for as long as the kernel works, some milliseconds for many services.
    ///
    /// # Errors
    /// When the kernel refuses. Nothing has changed then for packets, and the next call builds
    /// the whole table anew.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = (ObjectKey, Option<Plan>)>,
    ) -> Result<(), NetlinkError> {
        let mut before = BTreeMap::new();
        for (key, plan) in changes {
            let old = match plan {
                Some(plan) => self.plans.insert(key.clone(), plan),
                None => self.plans.remove(&key),
            };
            before.entry(key).or_insert_with(|| old.unwrap_or_default());
        }
        if !std::mem::replace(&mut self.in_step, false) {
            self.rebuild()?;
        } else {
            self.change(&before)?;
        }
        self.in_step = true;
        Ok(())
    }

    /// The plan of a service that is in the kernel, or will be.
    pub fn plan(&self, key: &ObjectKey) -> Option<&Plan> {
        self.plans.get(key)
    }

    fn rebuild(&self) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new(Family::Ip, TABLE);
        transaction.replace_table();
        skeleton(&mut transaction);
        let nothing = Plan::default();
        let all: Vec<_> = self.plans.values().map(|plan| (&nothing, plan)).collect();
        difference(&mut transaction, &all);
        transaction.commit()
    }

    fn change(&self, before: &BTreeMap<ObjectKey, Plan>) -> Result<(), NetlinkError> {
        let nothing = Plan::default();
        let changed: Vec<_> = before
            .iter()
            .map(|(key, old)| (old, self.plans.get(key).unwrap_or(&nothing)))
            .collect();
        let mut transaction = Transaction::new(Family::Ip, TABLE);
        difference(&mut transaction, &changed);
        transaction.commit()
    }
}

/// Removes the table.
///
/// # Errors
/// When the kernel refuses. A table that is absent is fine.
pub fn reset() -> Result<(), NetlinkError> {
    if !table_names(Family::Ip)?.iter().any(|name| name == TABLE) {
        return Ok(());
    }
    let mut transaction = Transaction::new(Family::Ip, TABLE);
    transaction.delete_table();
    transaction.commit()
}

/// Chains, maps and rules that do not depend on services.
fn skeleton(transaction: &mut Transaction) {
    let service = || vec![KeyField::Address, KeyField::Layer4, KeyField::Port];
    let port = || vec![KeyField::Layer4, KeyField::Port];
    for (name, key, data) in [
        (SERVICE_IPS, service(), SetData::Verdict),
        (NODE_PORTS, port(), SetData::Verdict),
        (NO_ENDPOINT_IPS, service(), SetData::Verdict),
        (NO_ENDPOINT_NODE_PORTS, port(), SetData::Verdict),
        (CLUSTER_IPS, vec![KeyField::Address], SetData::None),
    ] {
        transaction.add_set(&Set { name: name.to_owned(), key, data, timeout_ms: None });
    }
    for chain in [MARK_FOR_MASQUERADE, REJECT, "services", "masquerading", "no-endpoints"] {
        transaction.add_chain(chain, None);
    }
    transaction.add_chain("cluster-ips-check", None);
    transaction.add_rule(MARK_FOR_MASQUERADE, &Rule::new().set_mark(MASQUERADE_MARK));
    transaction.add_rule(REJECT, &Rule::new().reject());
    let node_port = || {
        let loopback = std::net::Ipv4Addr::new(127, 0, 0, 0);
        Rule::new().destination_is_local().destination_not(loopback, 8)
    };
    transaction
        .add_rule("services", &Rule::new().dispatch_by_destination(SERVICE_IPS))
        .add_rule("services", &node_port().dispatch_by_port(NODE_PORTS))
        .add_rule(
            "masquerading",
            &Rule::new().mark_lacks(MASQUERADE_MARK).verdict(&Verdict::Return),
        )
        .add_rule("masquerading", &Rule::new().clear_mark(MASQUERADE_MARK).masquerade())
        .add_rule("no-endpoints", &Rule::new().dispatch_by_destination(NO_ENDPOINT_IPS))
        .add_rule("no-endpoints", &node_port().dispatch_by_port(NO_ENDPOINT_NODE_PORTS))
        .add_rule("cluster-ips-check", &Rule::new().destination_in(CLUSTER_IPS, true).reject());
    base_chains(transaction);
}

fn base_chains(transaction: &mut Transaction) {
    let nat = |point, priority| Hook { kind: HookKind::Nat, point, priority };
    let filter = |point, priority| Hook { kind: HookKind::Filter, point, priority };
    let new = || Rule::new().connection_is_new();
    for (chain, hook, rules) in [
        (
            "nat-prerouting",
            nat(HookPoint::Prerouting, PRIORITY_DNAT),
            vec![Rule::new().jump("services")],
        ),
        ("nat-output", nat(HookPoint::Output, PRIORITY_DNAT), vec![Rule::new().jump("services")]),
        (
            "nat-postrouting",
            nat(HookPoint::Postrouting, PRIORITY_SNAT),
            vec![Rule::new().jump("masquerading")],
        ),
        (
            "filter-input",
            filter(HookPoint::Input, PRIORITY_FILTER_BEFORE_DNAT),
            vec![new().jump("no-endpoints")],
        ),
        (
            "filter-forward",
            filter(HookPoint::Forward, PRIORITY_FILTER_BEFORE_DNAT),
            vec![new().jump("no-endpoints"), new().jump("cluster-ips-check")],
        ),
        (
            "filter-output",
            filter(HookPoint::Output, PRIORITY_FILTER_BEFORE_DNAT),
            vec![new().jump("no-endpoints")],
        ),
        (
            "filter-output-post-dnat",
            filter(HookPoint::Output, PRIORITY_FILTER),
            vec![new().jump("cluster-ips-check")],
        ),
    ] {
        transaction.add_chain(chain, Some(hook));
        for rule in &rules {
            transaction.add_rule(chain, rule);
        }
    }
}

/// Adds to a transaction what leads from each first plan to its second one.
///
/// Order matters to the kernel: what is referred to is made first, references go before what they
/// refer to.
fn difference(transaction: &mut Transaction, plans: &[(&Plan, &Plan)]) {
    let mut removed: BTreeMap<&'static str, Vec<Element>> = BTreeMap::new();
    let mut added: BTreeMap<&'static str, Vec<Element>> = BTreeMap::new();
    for (old, new) in plans {
        for (map, element) in old.elements.difference(&new.elements) {
            removed.entry(map).or_default().push(element.clone());
        }
        for (map, element) in new.elements.difference(&old.elements) {
            added.entry(map).or_default().push(element.clone());
        }
    }
    for (map, elements) in &removed {
        transaction.delete_elements(map, elements);
    }
    for (old, new) in plans {
        for (name, set) in &new.sets {
            if old.sets.get(name) != Some(set) {
                transaction.add_set(set);
            }
        }
        for name in new.chains.keys().filter(|name| !old.chains.contains_key(*name)) {
            transaction.add_chain(name, None);
        }
    }
    let mut maps = 0;
    for (old, new) in plans {
        for (name, rules) in &new.chains {
            if old.chains.get(name) != Some(rules) {
                if old.chains.contains_key(name) {
                    transaction.flush_chain(name);
                }
                add_rules(transaction, name, rules, &mut maps);
            }
        }
        let gone = || old.chains.keys().filter(|name| !new.chains.contains_key(*name));
        for name in gone() {
            transaction.flush_chain(name);
        }
        for name in gone() {
            transaction.delete_chain(name);
        }
        for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
            transaction.delete_set(name);
        }
    }
    for (map, elements) in &added {
        transaction.add_elements(map, elements);
    }
}

fn add_rules(transaction: &mut Transaction, chain: &str, rules: &[RulePlan], maps: &mut u32) {
    for rule in rules {
        match rule {
            RulePlan::Rule(rule) => {
                transaction.add_rule(chain, rule);
            }
            RulePlan::AnyOf(targets) => {
                // The kernel replaces %d; the number before it keeps names of one transaction apart.
                *maps += 1;
                let name = format!("__any{maps}.%d");
                let goto = |target: &String| ElementData::Verdict(Verdict::Goto(target.clone()));
                let elements: Vec<_> = (0_u32..)
                    .zip(targets)
                    .map(|(index, target)| Element::number(index, goto(target)))
                    .collect();
                let (key, data) = (vec![KeyField::Number], SetData::Verdict);
                let set = Set { name: name.clone(), key, data, timeout_ms: None };
                let id = transaction.add_anonymous_map(&set, &elements);
                let modulus = u32::try_from(targets.len()).expect("far fewer endpoints than 2^32");
                transaction.add_rule(chain, &Rule::new().dispatch_at_random(&name, id, modulus));
            }
        }
    }
}
