//! Versions that are served on demand and have the same shape as the one that is stored.

use serde_json::{Value, json};

use super::Conversion;

/// Group and version served, version stored, resources.
type Twins = (&'static str, &'static str, &'static [(&'static str, Conversion)]);

/// The conversion between two versions of a resource that differ in their name alone.
macro_rules! twin {
    ($group:literal, $served:literal, $stored:literal, $resource:literal) => {
        (
            $resource,
            Conversion {
                stored_as: ($group, $stored, $resource),
                to_storage: |object| label(object, concat!($group, "/", $stored)),
                from_storage: |object| label(object, concat!($group, "/", $served)),
                is_validated_as_stored: true,
                fields: &[],
            },
        )
    };
}

static ALL: [Twins; 8] = [
    (
        "admissionregistration.k8s.io",
        "v1beta1",
        &[
            twin!("admissionregistration.k8s.io", "v1beta1", "v1", "mutatingadmissionpolicies"),
            twin!(
                "admissionregistration.k8s.io",
                "v1beta1",
                "v1",
                "mutatingadmissionpolicybindings"
            ),
        ],
    ),
    (
        "admissionregistration.k8s.io",
        "v1alpha1",
        &[
            twin!("admissionregistration.k8s.io", "v1alpha1", "v1", "mutatingadmissionpolicies"),
            twin!(
                "admissionregistration.k8s.io",
                "v1alpha1",
                "v1",
                "mutatingadmissionpolicybindings"
            ),
        ],
    ),
    (
        "certificates.k8s.io",
        "v1alpha1",
        &[twin!("certificates.k8s.io", "v1alpha1", "v1beta1", "clustertrustbundles")],
    ),
    (
        "coordination.k8s.io",
        "v1alpha2",
        &[twin!("coordination.k8s.io", "v1alpha2", "v1beta1", "leasecandidates")],
    ),
    (
        "networking.k8s.io",
        "v1beta1",
        &[
            twin!("networking.k8s.io", "v1beta1", "v1", "ipaddresses"),
            twin!("networking.k8s.io", "v1beta1", "v1", "servicecidrs"),
        ],
    ),
    (
        "resource.k8s.io",
        "v1beta2",
        &[
            twin!("resource.k8s.io", "v1beta2", "v1", "deviceclasses"),
            twin!("resource.k8s.io", "v1beta2", "v1", "resourceclaims"),
            twin!("resource.k8s.io", "v1beta2", "v1", "resourceclaimtemplates"),
            twin!("resource.k8s.io", "v1beta2", "v1", "resourceslices"),
        ],
    ),
    (
        "resource.k8s.io",
        "v1alpha3",
        &[twin!("resource.k8s.io", "v1alpha3", "v1beta2", "devicetaintrules")],
    ),
    (
        "storage.k8s.io",
        "v1beta1",
        &[twin!("storage.k8s.io", "v1beta1", "v1", "volumeattributesclasses")],
    ),
];

pub(super) fn find(group: &str, version: &str, resource: &str) -> Option<&'static Conversion> {
    let (_, _, twins) = ALL.iter().find(|(g, v, _)| (*g, *v) == (group, version))?;
    twins.iter().find(|(name, _)| *name == resource).map(|(_, conversion)| conversion)
}

pub(super) fn label(object: &mut Value, api_version: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), json!(api_version));
    }
}
