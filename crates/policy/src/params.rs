//! Which parameters a binding has.
//!
//! Upstream: `CollectParams` in `apiserver/pkg/admission/plugin/policy/generic`.

use meta::LabelSelector;
use serde::Deserialize;
use serde_json::Value as Json;

/// What kind of object the parameters of a policy are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct ParamKind {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
}

/// Which of them a binding takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParamRef {
    /// One with this name.
    pub name: String,
    /// In this namespace instead of that of the object.
    pub namespace: String,
    /// Those with these labels.
    pub selector: Option<Json>,
    /// What comes of it when there are none.
    pub parameter_not_found_action: String,
}

/// A parameter; none when the policy or its binding asks for none.
pub type Param = Option<Json>;

/// Where parameters are found.
pub trait Params {
    /// Whether objects of the kind have a namespace; `None` when there is no such kind.
    fn is_namespaced(&self, kind: &ParamKind) -> Option<bool>;
    /// An object by its name, as clients see it. The namespace is empty when the kind has none.
    fn get(&self, kind: &ParamKind, namespace: &str, name: &str) -> Option<Json>;
    /// Objects of a namespace by their labels.
    fn list(&self, kind: &ParamKind, namespace: &str, selector: &LabelSelector) -> Vec<Json>;
}

/// The parameters of a binding for an object of this namespace, each of which is a run of the
/// policy of its own. None at all when there are none and that is allowed.
///
/// # Errors
/// How the binding is wrong.
pub fn collect(
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
    namespace: &str,
    source: &dyn Params,
) -> Result<Vec<Param>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
    let Some(is_namespaced) = source.is_namespaced(kind) else {
        return Err(format!(
            "paramKind kind `&ParamKind{{APIVersion:{},Kind:{},}}` not known",
            kind.api_version, kind.kind
        ));
    };
    let namespace = match (is_namespaced, reference.namespace.as_str()) {
        (true, "") if namespace.is_empty() => {
            let why = "cannot use namespaced paramRef in policy binding that matches \
                       cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "") => namespace,
        (true, given) => given,
        (false, "") => "",
        (false, _) => {
            let why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
            return Err(why.to_owned());
        }
    };
    let found: Vec<Json> = if !reference.name.is_empty() {
        source.get(kind, namespace, &reference.name).into_iter().collect()
    } else if let Some(selector) = &reference.selector {
        let selector = LabelSelector::from_object(Some(selector)).map_err(|why| why.to_string())?;
        source.list(kind, namespace, &selector)
    } else {
        return Err("one of name or selector must be provided".to_owned());
    };
    if found.is_empty() && reference.parameter_not_found_action == "Deny" {
        let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(why.to_owned());
    }
    Ok(found.into_iter().map(Some).collect())
}
