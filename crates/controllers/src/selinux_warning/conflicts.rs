//! The pure core: which pods use which volume how, and who is in whose way.

use std::collections::{BTreeMap, HashMap};

use meta::ObjectKey;

/// How a pod wants the files of a volume to be labelled: by walking over all of them.
const RECURSIVE: &str = "Recursive";
/// The other way, and the default: when the volume is mounted.
const MOUNT_OPTION: &str = "MountOption";

/// In what two pods differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    Label,
    ChangePolicy,
}

impl Property {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Label => "SELinuxLabel",
            Self::ChangePolicy => "SELinuxChangePolicy",
        }
    }

    /// The reason of events.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Label => "SELinuxLabelConflict",
            Self::ChangePolicy => "SELinuxChangePolicyConflict",
        }
    }
}

/// A pod that differs from another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) property: Property,
    pub(super) pod: ObjectKey,
    pub(super) value: String,
    pub(super) other: ObjectKey,
    pub(super) other_value: String,
}

impl Conflict {
    /// What the pod is told. Of one in another namespace it learns no name.
    pub(super) fn text(&self) -> String {
        let Self { pod, value, other, other_value, .. } = self;
        let property = self.property.as_str();
        let end = "If both pods land on the same node, only one of them may access the volume.";
        if pod.namespace == other.namespace {
            let name = &other.name;
            return format!(
                "{property} \"{value}\" conflicts with pod {name} that uses the same volume as \
                 this pod with {property} \"{other_value}\". {end}"
            );
        }
        // There is no space after the property in upstream's text.
        format!(
            "{property}\"{value}\" conflicts with another pod that uses the same volume as this \
             pod with a different {property}. {end}"
        )
    }
}

/// How a pod uses a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    label: String,
    policy: &'static str,
}

impl Use {
    /// What a label and a policy mean for a volume. One that cannot be mounted with a label is
    /// labelled file by file, for every pod anew.
    pub(super) fn new(label: &str, policy: Option<&str>, takes_labels: bool) -> Self {
        let is_recursive = policy == Some(RECURSIVE) || !takes_labels || label.is_empty();
        if is_recursive {
            return Self { label: String::new(), policy: RECURSIVE };
        }
        Self { label: label.to_owned(), policy: MOUNT_OPTION }
    }
}

/// Which pods use which volumes.
#[derive(Debug, Default)]
pub(super) struct Uses {
    volumes: HashMap<String, UsedVolume>,
}

#[derive(Debug, Default)]
struct UsedVolume {
    driver: String,
    pods: BTreeMap<ObjectKey, Use>,
}

impl Uses {
    /// Notes a pod's use of a volume; gives the conflicts that are new, for both sides.
    pub(super) fn add(
        &mut self,
        volume: &str,
        driver: &str,
        pod: &ObjectKey,
        using: Use,
    ) -> Vec<Conflict> {
        let used = self.volumes.entry(volume.to_owned()).or_default();
        driver.clone_into(&mut used.driver);
        if used.pods.insert(pod.clone(), using.clone()).as_ref() == Some(&using) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (other, others) in used.pods.iter().filter(|(other, _)| *other != pod) {
            for (mine, theirs) in between((pod, &using), (other, others))
                .into_iter()
                .zip(between((other, others), (pod, &using)))
            {
                found.extend([mine, theirs]);
            }
        }
        found
    }

    /// A pod uses nothing any more.
    pub(super) fn forget(&mut self, pod: &ObjectKey) {
        self.volumes.retain(|_, used| {
            used.pods.remove(pod);
            !used.pods.is_empty()
        });
    }

    /// The pods that use volumes of a driver.
    pub(super) fn pods_of_driver(&self, driver: &str) -> Vec<ObjectKey> {
        let used = self.volumes.values().filter(|used| used.driver == driver);
        used.flat_map(|used| used.pods.keys().cloned()).collect()
    }

    /// All conflicts, from either side.
    pub(super) fn all(&self) -> Vec<Conflict> {
        let mut all = Vec::new();
        for used in self.volumes.values() {
            for one in &used.pods {
                for other in used.pods.iter().filter(|other| other.0 != one.0) {
                    all.extend(between(one, other));
                }
            }
        }
        all
    }
}

/// What a pod is told of another one.
fn between(one: (&ObjectKey, &Use), other: (&ObjectKey, &Use)) -> Vec<Conflict> {
    let conflict = |property, value: &str, other_value: &str| Conflict {
        property,
        pod: one.0.clone(),
        value: value.to_owned(),
        other: other.0.clone(),
        other_value: other_value.to_owned(),
    };
    let (mine, theirs) = (one.1, other.1);
    let mut found = Vec::new();
    if mine.policy != theirs.policy {
        found.push(conflict(Property::ChangePolicy, mine.policy, theirs.policy));
    }
    if differ(&mine.label, &theirs.label) {
        found.push(conflict(Property::Label, &mine.label, &theirs.label));
    }
    found
}

/// Whether two labels cannot be the same. A part that is not said is completed by the node, to
/// nobody knows what.
fn differ(one: &str, other: &str) -> bool {
    let mut parts = one.splitn(4, ':').zip(other.splitn(4, ':'));
    parts.any(|(one, other)| one != other && !one.is_empty() && !other.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        let (namespace, name) = name.split_once('/').unwrap_or(("n", name));
        ObjectKey::new(namespace, name)
    }

    fn with(label: &str) -> Use {
        Use::new(label, None, true)
    }

    fn texts(found: &[Conflict]) -> Vec<String> {
        let end = " If both pods land on the same node, only one of them may access the volume.";
        let text =
            |one: &Conflict| format!("{}: {}", one.pod, one.text().strip_suffix(end).unwrap());
        found.iter().map(text).collect()
    }

    #[test]
    fn both_pods_are_told_of_different_labels_once() {
        let mut uses = Uses::default();
        assert_eq!(uses.add("v", "d", &key("a"), with(":::s0:c1")), []);
        assert_eq!(uses.add("w", "d", &key("b"), with(":::s0:c2")), []);
        let found = uses.add("v", "d", &key("b"), with(":::s0:c2"));
        let expected = [
            "n/b: SELinuxLabel \":::s0:c2\" conflicts with pod a that uses the same volume as \
             this pod with SELinuxLabel \":::s0:c1\".",
            "n/a: SELinuxLabel \":::s0:c1\" conflicts with pod b that uses the same volume as \
             this pod with SELinuxLabel \":::s0:c2\".",
        ];
        assert_eq!(texts(&found), expected);
        assert_eq!(found[0].property.reason(), "SELinuxLabelConflict");
        assert_eq!(uses.add("v", "d", &key("b"), with(":::s0:c2")), []);
        assert_eq!(uses.all().len(), 2);
        uses.forget(&key("a"));
        assert_eq!(uses.all(), []);
        assert_eq!(uses.pods_of_driver("d").len(), 2);
        assert_eq!(uses.pods_of_driver("e"), []);
    }

    #[test]
    fn a_pod_of_another_namespace_is_not_named() {
        let mut uses = Uses::default();
        uses.add("v", "", &key("m/a"), with("u:::"));
        let found = uses.add("v", "", &key("b"), with("x:::"));
        let expected = "n/b: SELinuxLabel\"x:::\" conflicts with another pod that uses the same \
                        volume as this pod with a different SELinuxLabel.";
        assert_eq!(texts(&found)[0], expected);
    }

    #[test]
    fn ways_of_labelling_are_compared_too() {
        let mut uses = Uses::default();
        uses.add("v", "", &key("a"), Use::new("u:::", Some("Recursive"), true));
        let found = uses.add("v", "", &key("b"), with("u:::"));
        let expected = "n/b: SELinuxChangePolicy \"MountOption\" conflicts with pod a that uses \
                        the same volume as this pod with SELinuxChangePolicy \"Recursive\".";
        assert_eq!((found.len(), texts(&found)[0].as_str()), (2, expected));
        // Where volumes cannot be mounted with labels all is recursive.
        uses.add("w", "", &key("a"), Use::new("u:::", None, false));
        assert_eq!(uses.add("w", "", &key("b"), Use::new("x:::", None, false)), []);
        assert_eq!(with(""), Use::new("u:::", Some("Recursive"), true));
    }

    #[test]
    fn parts_that_are_not_said_differ_from_nothing() {
        for (one, other, expected) in [
            ("", "u:r:t:s0", false),
            ("u:r:t:s0:c1,c2", ":::s0:c1,c2", false),
            ("u:r:t:s0:c1,c2", ":::s0:c98,c99", true),
            ("u:::", ":r::", false),
            ("u:::", "v:::", true),
        ] {
            assert_eq!(differ(one, other), expected, "{one} {other}");
        }
    }
}
