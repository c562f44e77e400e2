//! Real containers, in cgroups and namespaces that the tests make themselves.

mod agent;
mod basics;
mod harness;
mod isolation;
mod streams;
