//! The pod network: bridge, veth pairs and addresses.
