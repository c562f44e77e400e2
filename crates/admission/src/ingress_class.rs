//! DefaultIngressClass: ingresses that do not say get the default class.
//!
//! Upstream: `plugin/pkg/admission/network/defaultingressclass`.

use meta::Status;
use serde_json::{Value, json};

use crate::chain::Plugin;
use crate::refusal::{forbidden, internal_text};
use crate::request::{Operation, Request, View};

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How ingresses said it before they had a field for it.
const ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(crate) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let is_new = request.operation == Operation::Create;
        if !is_new || !request.is_for("networking.k8s.io", "ingresses") {
            return Ok(());
        }
        let says = object["spec"].get("ingressClassName").is_some()
            || object["metadata"]["annotations"].get(ANNOTATION).is_some();
        if says {
            return Ok(());
        }
        let classes = view.list("networking.k8s.io", "ingressclasses", "");
        let classes = classes.iter().filter_map(|class| class.decode::<Value>().ok());
        let defaults: Vec<Value> =
            classes.filter(|class| class["metadata"]["annotations"][DEFAULT] == "true").collect();
        match defaults.as_slice() {
            [] => {}
            [one] => object["spec"]["ingressClassName"] = json!(one["metadata"]["name"]),
            many => {
                let count = many.len();
                let why = format!("{count} default IngressClasses were found, only 1 allowed");
                return Err(forbidden(request, &internal_text(&why)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, attempt};

    fn class(name: &str, is_default: bool) -> Value {
        json!({"metadata": {"name": name, "annotations": {DEFAULT: is_default.to_string()}}})
    }

    fn admitted(classes: &[Value], ingress: &Value) -> Result<Value, String> {
        let cluster = Cluster::default().with("ingressclasses", classes);
        let mut object = ingress.clone();
        let create = attempt("networking.k8s.io", "ingresses", Operation::Create);
        create.admit(&DefaultIngressClass, &mut object, None, &cluster)?;
        Ok(object["spec"]["ingressClassName"].clone())
    }

    #[test]
    fn an_ingress_gets_the_one_default_class() {
        let plain = json!({"spec": {}});
        assert_eq!(admitted(&[class("a", true), class("b", false)], &plain), Ok(json!("a")));
        assert_eq!(admitted(&[class("b", false)], &plain), Ok(Value::Null));
        let chosen = json!({"spec": {"ingressClassName": "b"}});
        assert_eq!(admitted(&[class("a", true)], &chosen), Ok(json!("b")));
        let annotated = json!({"metadata": {"annotations": {ANNOTATION: ""}}, "spec": {}});
        assert_eq!(admitted(&[class("a", true)], &annotated), Ok(Value::Null));
    }

    #[test]
    fn two_default_classes_are_one_too_many() {
        let refusal = admitted(&[class("a", true), class("b", true)], &json!({"spec": {}}));
        assert_eq!(
            refusal.unwrap_err(),
            "ingresses.networking.k8s.io \"x\" is forbidden: Internal error occurred: 2 default \
             IngressClasses were found, only 1 allowed"
        );
    }
}
