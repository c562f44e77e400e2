//! `admissionregistration.k8s.io`: webhooks and policies.

use super::Rule;

pub(super) const RULES: &[Rule] = &[
    ("admissionregistration/v1.ValidatingWebhook", "failurePolicy", "\"Fail\""),
    ("admissionregistration/v1.ValidatingWebhook", "matchPolicy", "\"Equivalent\""),
    ("admissionregistration/v1.ValidatingWebhook", "namespaceSelector", "{}"),
    ("admissionregistration/v1.ValidatingWebhook", "objectSelector", "{}"),
    ("admissionregistration/v1.ValidatingWebhook", "timeoutSeconds", "10"),
    ("admissionregistration/v1.MutatingWebhook", "failurePolicy", "\"Fail\""),
    ("admissionregistration/v1.MutatingWebhook", "matchPolicy", "\"Equivalent\""),
    ("admissionregistration/v1.MutatingWebhook", "namespaceSelector", "{}"),
    ("admissionregistration/v1.MutatingWebhook", "objectSelector", "{}"),
    ("admissionregistration/v1.MutatingWebhook", "timeoutSeconds", "10"),
    ("admissionregistration/v1.MutatingWebhook", "reinvocationPolicy", "\"Never\""),
    ("admissionregistration/v1.RuleWithOperations", "scope", "\"*\""),
    ("admissionregistration/v1.NamedRuleWithOperations", "scope", "\"*\""),
    ("admissionregistration/v1.ServiceReference", "port", "443"),
    ("admissionregistration/v1.ValidatingAdmissionPolicySpec", "failurePolicy", "\"Fail\""),
    ("admissionregistration/v1.MutatingAdmissionPolicySpec", "failurePolicy", "\"Fail\""),
    ("admissionregistration/v1.MatchResources", "matchPolicy", "\"Equivalent\""),
    ("admissionregistration/v1.MatchResources", "namespaceSelector", "{}"),
    ("admissionregistration/v1.MatchResources", "objectSelector", "{}"),
];
