//! What controllers keep of a pod's claims for devices.

use k8s_openapi::api::core::v1::{PodSpec, PodStatus};

/// The claims of a pod that has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodDevices {
    pub(crate) wanted: Vec<DeviceClaim>,
    /// The claim that was made for the pod's extended resources.
    pub(crate) extended: Option<String>,
}

/// One entry of `spec.resourceClaims`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceClaim {
    pub(crate) name: String,
    /// The template that its claim is made of.
    pub(crate) template: Option<String>,
    pub(crate) claim: Named,
}

/// Which claim it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// One that the user made.
    Given(String),
    /// One that was made for the pod.
    Made(String),
    /// None was needed.
    NotNeeded,
    /// None has been made yet.
    NotMade,
}

impl PodDevices {
    /// Of a pod; `None` when it has no claims.
    pub(crate) fn of(spec: &PodSpec, status: &PodStatus) -> Option<Box<Self>> {
        let made = |name: &str| {
            let mut statuses = status.resource_claim_statuses.iter().flatten();
            match statuses.find(|status| status.name == name).map(|one| &one.resource_claim_name) {
                Some(Some(claim)) => Named::Made(claim.clone()),
                Some(None) => Named::NotNeeded,
                None => Named::NotMade,
            }
        };
        let entries = spec.resource_claims.iter().flatten();
        let wanted: Vec<_> = entries
            .map(|entry| DeviceClaim {
                name: entry.name.clone(),
                template: entry.resource_claim_template_name.clone(),
                claim: match &entry.resource_claim_name {
                    Some(claim) => Named::Given(claim.clone()),
                    None => made(&entry.name),
                },
            })
            .collect();
        let extended = status.extended_resource_claim_status.as_ref();
        let extended = extended.map(|status| status.resource_claim_name.clone());
        let is_any = !wanted.is_empty() || extended.is_some();
        is_any.then(|| Box::new(Self { wanted, extended }))
    }

    /// The names of the claims that are known.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &str> {
        let named = self.wanted.iter().filter_map(|wanted| match &wanted.claim {
            Named::Given(name) | Named::Made(name) => Some(name.as_str()),
            Named::NotNeeded | Named::NotMade => None,
        });
        named.chain(self.extended.as_deref())
    }
}
