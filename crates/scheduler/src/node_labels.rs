//! Labels of a node.

use std::collections::BTreeMap;

use api::labels::{HOSTNAME, ZONE};

/// Labels of a node. Those that are asked for with every pod are found at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLabels {
    all: BTreeMap<String, String>,
    hostname: Option<String>,
    zone: Option<String>,
}

impl NodeLabels {
    /// All of them.
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.all
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        match key {
            HOSTNAME => self.hostname.as_deref(),
            ZONE => self.zone.as_deref(),
            _ => self.all.get(key).map(String::as_str),
        }
    }
}

impl From<BTreeMap<String, String>> for NodeLabels {
    fn from(all: BTreeMap<String, String>) -> Self {
        let (hostname, zone) = (all.get(HOSTNAME).cloned(), all.get(ZONE).cloned());
        Self { all, hostname, zone }
    }
}

impl FromIterator<(String, String)> for NodeLabels {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(labels: T) -> Self {
        BTreeMap::from_iter(labels).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_found() {
        let labels = [(HOSTNAME, "a"), (ZONE, "z"), ("disk", "ssd")];
        let found: NodeLabels =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        for (key, value) in labels {
            assert_eq!(found.get(key), Some(value));
        }
        assert_eq!(found.get("other"), None);
        assert_eq!(NodeLabels::default().get(ZONE), None);
    }
}
