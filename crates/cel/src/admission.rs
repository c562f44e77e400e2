//! The environments of expressions about requests and devices.
//!
//! Upstream: `apiserver/pkg/admission/plugin/cel/compile.go` and
//! `dynamic-resource-allocation/cel/compile.go`.

use std::sync::{Arc, LazyLock};

use crate::declaration::{Declaration, Fields, ListKind};
use crate::environment::Environment;
use crate::types::Type;

/// What expressions of a webhook or policy see beside the objects of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sees {
    /// The policy has parameters.
    pub params: bool,
    /// They may ask the authorizer.
    pub authorizer: bool,
    /// They make patches.
    pub patches: bool,
}

impl Environment {
    /// The environment of match conditions, and of the expressions of policies.
    pub fn admission(sees: Sees) -> Self {
        let mut environment = Self::new()
            .with("object", Declaration::dynamic())
            .with("oldObject", Declaration::dynamic())
            .with("namespaceObject", NAMESPACE.clone())
            .with("request", REQUEST.clone());
        if sees.params {
            environment = environment.with("params", Declaration::dynamic());
        }
        if sees.authorizer {
            let of = |name| Declaration::of(Type::Opaque(name));
            environment = environment
                .with("authorizer", of("kubernetes.authorization.Authorizer"))
                .with("authorizer.requestResource", of("kubernetes.authorization.ResourceCheck"));
        }
        if sees.patches { environment.with_patch_types() } else { environment }
    }

    /// The environment of selectors of devices.
    pub fn device() -> Self {
        Self::new().with("device", DEVICE.clone())
    }
}

/// The type of what applies a configuration.
pub fn configuration() -> Type {
    Type::Object(Arc::new(Fields::open("Object")))
}

/// The type of what patches.
pub fn patches() -> Type {
    Type::list(Type::Object(Arc::new(Fields::open("JSONPatch"))))
}

/// The declaration of `request`, by which its value is typed.
pub fn request() -> &'static Declaration {
    &REQUEST
}

/// The declaration of `namespaceObject`.
pub fn namespace() -> &'static Declaration {
    &NAMESPACE
}

fn text() -> Declaration {
    Declaration::of(Type::String)
}

fn texts() -> Declaration {
    Declaration::list(text(), ListKind::Atomic)
}

static REQUEST: LazyLock<Arc<Declaration>> = LazyLock::new(|| {
    let object = |name: &str, fields: Vec<(&'static str, Declaration)>| {
        Declaration::object(Fields::plain(name, fields))
    };
    let kind = || {
        let fields = vec![("group", text()), ("version", text()), ("kind", text())];
        object("kubernetes.GroupVersionKind", fields)
    };
    let resource = || {
        let fields = vec![("group", text()), ("version", text()), ("resource", text())];
        object("kubernetes.GroupVersionResource", fields)
    };
    let user = object(
        "kubernetes.UserInfo",
        vec![
            ("username", text()),
            ("uid", text()),
            ("groups", texts()),
            ("extra", Declaration::map(texts())),
        ],
    );
    let request = vec![
        ("kind", kind()),
        ("resource", resource()),
        ("subResource", text()),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("requestSubResource", text()),
        ("name", text()),
        ("namespace", text()),
        ("operation", text()),
        ("userInfo", user),
        ("dryRun", Declaration::of(Type::Bool)),
        ("options", Declaration::dynamic()),
    ];
    Arc::new(object("kubernetes.AdmissionRequest", request))
});

static NAMESPACE: LazyLock<Arc<Declaration>> = LazyLock::new(|| {
    let object = |name: &str, fields: Vec<(&'static str, Declaration)>| {
        Declaration::object(Fields::plain(name, fields))
    };
    let time = || Declaration::of(Type::Timestamp);
    let int = || Declaration::of(Type::Int);
    let metadata = vec![
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("labels", Declaration::map(text())),
        ("annotations", Declaration::map(text())),
        ("UID", text()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", int()),
        ("deletionTimestamp", time()),
        ("generation", int()),
        ("resourceVersion", text()),
        ("finalizers", texts()),
    ];
    let condition = vec![
        ("status", text()),
        ("type", text()),
        ("lastTransitionTime", time()),
        ("message", text()),
        ("reason", text()),
    ];
    let condition = object("kubernetes.NamespaceCondition", condition);
    let conditions = Declaration::list(condition, ListKind::Atomic);
    let status = vec![("conditions", conditions), ("phase", text())];
    let namespace = vec![
        ("metadata", object("kubernetes.NamespaceMetadata", metadata)),
        ("spec", object("kubernetes.NamespaceSpec", vec![("finalizers", texts())])),
        ("status", object("kubernetes.NamespaceStatus", status)),
    ];
    Arc::new(object("kubernetes.Namespace", namespace))
});

/// Most characters of an attribute, and most attributes and capacities of a device.
const MAX_ATTRIBUTE: u64 = 64;
const MAX_ATTRIBUTES: u64 = 32;
/// Most characters of the name of a driver.
const MAX_DRIVER: u64 = 63;

static DEVICE: LazyLock<Arc<Declaration>> = LazyLock::new(|| {
    let by_domain =
        |of: Declaration| Declaration::map(Declaration::map(of).at_most(MAX_ATTRIBUTES));
    let quantity = Declaration::of(Type::Opaque("kubernetes.Quantity"));
    let fields = vec![
        ("driver", text().at_most(MAX_DRIVER)),
        (
            "attributes",
            by_domain(Declaration::dynamic().at_most(MAX_ATTRIBUTE)).at_most(MAX_ATTRIBUTES),
        ),
        ("capacity", by_domain(quantity).at_most(MAX_ATTRIBUTES)),
        ("allowMultipleAllocations", Declaration::of(Type::Bool)),
    ];
    Arc::new(Declaration::object(Fields::plain("kubernetes.DRADevice", fields)))
});
