//! nftables over netlink.
//!
//! A [`Transaction`] collects changes to one table and commits them whole or not at all. A rule is
//! a list of expressions, made with [`Rule`]; sets and maps are made with [`Set`].
//!
//! Wire format (kernel `uapi/linux/netfilter/nf_tables.h`): one datagram with a batch-begin
//! message, the changes, and a batch-end message. Attribute integers are big-endian; values of
//! marks and number generators inside rules are in the host's order, addresses and ports in the
//! network's.

mod attributes;
mod dump;
mod expression;
mod rule;
mod set;
mod transaction;

pub use dump::table_names;
pub use rule::{Layer4, Rule, Verdict};
pub use set::{Element, ElementData, KeyField, Set, SetData};
pub use transaction::{Family, Hook, HookKind, HookPoint, Transaction};
