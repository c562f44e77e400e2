//! Well-known finalizers.

/// Dependents are orphaned before the object goes.
pub const ORPHAN: &str = "orphan";
/// Dependents are deleted before the object goes.
pub const FOREGROUND_DELETION: &str = "foregroundDeletion";
/// The namespace controller's, in `spec.finalizers` of a Namespace.
pub const KUBERNETES: &str = "kubernetes";
/// On the pods of a Job, until they are counted.
pub const JOB_TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// On a PersistentVolumeClaim, while a pod uses it.
pub const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// On a PersistentVolume, while a claim is bound to it.
pub const PV_PROTECTION: &str = "kubernetes.io/pv-protection";
/// On a VolumeAttributesClass, while a claim or volume has it.
pub const VAC_PROTECTION: &str = "kubernetes.io/vac-protection";
/// On a PersistentVolume that upstream's own provisioners made.
pub const PV_CONTROLLER: &str = "kubernetes.io/pv-controller";
/// On a ResourceClaim, while it is allocated.
pub const RESOURCE_CLAIM: &str = "resource.kubernetes.io/delete-protection";
