//! The informers that all controllers share: one watch and one cache per resource.

use std::net::IpAddr;
use std::sync::Arc;

use api::Typed;
use client::{Client, Informer, InformerConfig, ListOptions, Lister};
use clock::SharedClock;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use k8s_openapi::api::resource::v1beta2::DeviceTaintRule;
use k8s_openapi::api::storage::v1::{
    CSIDriver, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use meta::Object;
use stdx::interner::Interner;
use stdx::shutdown::Shutdown;

use crate::Config;
use crate::device_taint_eviction::{RuleView, SliceView};
use crate::disruption::BudgetView;
use crate::pod_view::{PodIndex, PodView};
use crate::service_account_token::{AccountView, SecretView, TYPE};
use crate::validating_admission_policy_status::PolicyView;
use crate::{bootstrap_secret, bootstrap_signer};

/// Name of the ConfigMap that carries the root CA to pods.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";

/// Selects the `IPAddress`es of services.
const OF_SERVICES: &str = "ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io";

/// One lister per resource.
pub(crate) struct Informers {
    pub(crate) namespaces: Lister<Namespace>,
    pub(crate) nodes: Lister<Node>,
    /// Of the nodes only; when they were renewed.
    pub(crate) node_leases: Lister<Option<MicroTime>>,
    pub(crate) service_accounts: Lister<AccountView>,
    /// Only those of [`bootstrap_secret::NAMESPACE`], with bootstrap tokens.
    pub(crate) bootstrap_secrets: Lister<Secret>,
    /// Only those of the namespace of the one that is signed for those who join.
    pub(crate) cluster_info: Lister<ConfigMap>,
    /// Only those for tokens of service accounts.
    pub(crate) token_secrets: Lister<Option<SecretView>>,
    /// Only those that are called [`ROOT_CA`]; their data.
    pub(crate) root_cas: Lister<ConfigMap>,
    pub(crate) pods: Lister<PodView>,
    pub(crate) pod_index: Arc<PodIndex>,
    pub(crate) replica_sets: Lister<ReplicaSet>,
    pub(crate) replication_controllers: Lister<ReplicationController>,
    pub(crate) deployments: Lister<Deployment>,
    pub(crate) daemon_sets: Lister<DaemonSet>,
    pub(crate) stateful_sets: Lister<StatefulSet>,
    pub(crate) controller_revisions: Lister<ControllerRevision>,
    pub(crate) cron_jobs: Lister<CronJob>,
    pub(crate) jobs: Lister<Job>,
    pub(crate) resource_quotas: Lister<ResourceQuota>,
    pub(crate) services: Lister<Service>,
    pub(crate) endpoints: Lister<Endpoints>,
    pub(crate) endpoint_slices: Lister<EndpointSlice>,
    pub(crate) service_cidrs: Lister<ServiceCIDR>,
    /// Only those that the API server keeps for services.
    pub(crate) ip_addresses: Lister<Option<IpAddr>>,
    pub(crate) validating_policies: Lister<PolicyView>,
    pub(crate) disruption_budgets: Lister<BudgetView>,
    pub(crate) autoscalers: Lister<HorizontalPodAutoscaler>,
    pub(crate) signing_requests: Lister<CertificateSigningRequest>,
    pub(crate) cluster_roles: Lister<ClusterRole>,
    pub(crate) storage_classes: Lister<StorageClass>,
    pub(crate) volumes: Lister<PersistentVolume>,
    pub(crate) claims: Lister<PersistentVolumeClaim>,
    pub(crate) attachments: Lister<VolumeAttachment>,
    pub(crate) csi_drivers: Lister<CSIDriver>,
    pub(crate) attributes_classes: Lister<VolumeAttributesClass>,
    pub(crate) device_claims: Lister<ResourceClaim>,
    /// Only where the cluster has them.
    pub(crate) device_taint_rules: Option<Lister<RuleView>>,
    /// The taints of their devices.
    pub(crate) resource_slices: Lister<SliceView>,
}

impl Informers {
    /// Starts all of them.
    pub(crate) fn spawn(
        config: &Config,
        client: &Client,
        clock: &SharedClock,
        shutdown: &Shutdown,
    ) -> Self {
        let start = Start { client, clock, shutdown };
        let all = ListOptions::all;
        let shapes = Interner::default();
        let project = move |object: &Object| Ok(PodView::new(Pod::of(object)?).shared(&shapes));
        let pods = Informer::spawn(client, clock, selected::<Pod>(all()), shutdown, project);
        Self {
            namespaces: start.whole::<Namespace>(ListOptions::all()),
            nodes: start.whole::<Node>(ListOptions::all()),
            node_leases: Informer::spawn(
                client,
                clock,
                InformerConfig {
                    namespace: "kube-node-lease".to_owned(),
                    ..InformerConfig::all::<Lease>()
                },
                shutdown,
                |object| Ok(Lease::of(object)?.spec.and_then(|spec| spec.renew_time)),
            ),
            service_accounts: Informer::spawn(
                client,
                clock,
                selected::<ServiceAccount>(all()),
                shutdown,
                |object| Ok(AccountView::new(ServiceAccount::of(object)?)),
            ),
            bootstrap_secrets: start.within::<Secret>(
                bootstrap_secret::NAMESPACE,
                ListOptions::fields(format!("type={}", bootstrap_secret::TYPE)),
            ),
            cluster_info: start.within::<ConfigMap>(
                bootstrap_signer::NAMESPACE,
                ListOptions::fields(format!("metadata.name={}", bootstrap_signer::NAME)),
            ),
            token_secrets: Informer::spawn(
                client,
                clock,
                selected::<Secret>(ListOptions::fields(format!("type={TYPE}"))),
                shutdown,
                |object| Ok(SecretView::of(&Secret::of(object)?)),
            ),
            root_cas: start
                .whole::<ConfigMap>(ListOptions::fields(format!("metadata.name={ROOT_CA}"))),
            pod_index: PodIndex::of(&pods),
            pods,
            replica_sets: start.whole(all()),
            replication_controllers: start.whole(all()),
            deployments: start.whole(all()),
            daemon_sets: start.whole(all()),
            stateful_sets: start.whole(all()),
            controller_revisions: start.whole(all()),
            cron_jobs: start.whole(all()),
            jobs: start.whole(all()),
            resource_quotas: start.whole(all()),
            services: start.whole(all()),
            endpoints: start.whole(all()),
            endpoint_slices: start.whole(all()),
            service_cidrs: start.whole(all()),
            ip_addresses: Informer::spawn(
                client,
                clock,
                selected::<IPAddress>(ListOptions::labels(OF_SERVICES)),
                shutdown,
                |object| Ok(object.header().name.parse().ok()),
            ),
            validating_policies: Informer::spawn(
                client,
                clock,
                selected::<ValidatingAdmissionPolicy>(all()),
                shutdown,
                |object| object.decode::<PolicyView>(),
            ),
            disruption_budgets: Informer::spawn(
                client,
                clock,
                selected::<PodDisruptionBudget>(all()),
                shutdown,
                |object| Ok(BudgetView::new(PodDisruptionBudget::of(object)?)),
            ),
            autoscalers: start.whole(all()),
            signing_requests: start.whole(all()),
            cluster_roles: start.whole(all()),
            storage_classes: start.whole(all()),
            volumes: start.whole(all()),
            claims: start.whole(all()),
            attachments: start.whole(all()),
            csi_drivers: start.whole(all()),
            attributes_classes: start.whole(all()),
            device_claims: start.whole(all()),
            device_taint_rules: config.features.is_enabled("DRADeviceTaintRules").then(|| {
                Informer::spawn(
                    client,
                    clock,
                    selected::<DeviceTaintRule>(all()),
                    shutdown,
                    |object| Ok(RuleView::new(DeviceTaintRule::of(object)?)),
                )
            }),
            resource_slices: Informer::spawn(
                client,
                clock,
                selected::<ResourceSlice>(all()),
                shutdown,
                |object| Ok(SliceView::new(ResourceSlice::of(object)?)),
            ),
        }
    }
}

struct Start<'a> {
    client: &'a Client,
    clock: &'a SharedClock,
    shutdown: &'a Shutdown,
}

impl Start<'_> {
    /// Kinds of which there are few, or of which most fields are read, are kept as they are.
    fn whole<K>(&self, options: ListOptions) -> Lister<K>
    where
        K: k8s_openapi::Resource + Typed + Send + Sync + 'static,
    {
        self.within("", options)
    }

    /// The same of one namespace.
    fn within<K>(&self, namespace: &str, options: ListOptions) -> Lister<K>
    where
        K: k8s_openapi::Resource + Typed + Send + Sync + 'static,
    {
        let config = InformerConfig { namespace: namespace.to_owned(), ..selected::<K>(options) };
        Informer::spawn(self.client, self.clock, config, self.shutdown, K::of)
    }
}

fn selected<K: k8s_openapi::Resource>(options: ListOptions) -> InformerConfig {
    InformerConfig { options, ..InformerConfig::all::<K>() }
}
