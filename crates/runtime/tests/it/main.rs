//! Real containers, in cgroups and namespaces that the tests make themselves.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod basics;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod images;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod races;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod users;
