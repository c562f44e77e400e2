//! Admission policies and their bindings.
//!
//! Upstream: `pkg/apis/admissionregistration/validation`.

use std::collections::BTreeSet;

use cel::admission::Sees;
use cel::{Environment, Type};
use meta::names;

use crate::FieldError;
use crate::match_rules::{compiled, match_conditions, match_resources, mutable_operations};
use crate::metadata::label_selector;
use crate::node::{Findings, Node};

const MAX_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

pub(crate) fn validating(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    failure_policy(&spec, out);
    param_kind(&spec.get("paramKind"), out);
    constraints(&spec.get("matchConstraints"), out);
    let environments = Environments::new(&spec);
    match_conditions(&spec.get("matchConditions"), &environments.conditions, out);
    let environments = environments.with_variables(&spec.get("variables"), out);
    let (rules, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if rules.len() + annotations.len() == 0 {
        let detail = "validations or auditAnnotations must contain at least one item";
        out.push(FieldError::required(&rules.path, detail));
        out.push(FieldError::required(&annotations.path, detail));
        return;
    }
    rules.items().for_each(|item| validation(&item, &environments, out));
    let name = object.get("metadata").get("name");
    audit_annotations(&annotations, name.text(), &environments, out);
}

pub(crate) fn mutating(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    failure_policy(&spec, out);
    param_kind(&spec.get("paramKind"), out);
    constraints(&spec.get("matchConstraints"), out);
    mutable_operations(&spec.get("matchConstraints"), out);
    let environments = Environments::new(&spec);
    match_conditions(&spec.get("matchConditions"), &environments.conditions, out);
    let environments = environments.with_variables(&spec.get("variables"), out);
    let mutations = spec.get("mutations");
    if mutations.len() == 0 {
        let detail = "mutations must contain at least one item";
        out.push(FieldError::required(&mutations.path, detail));
    }
    mutations.items().for_each(|item| mutation(&item, &environments.patches, out));
    spec.get("reinvocationPolicy").require_one_of(&["IfNeeded", "Never"], out);
}

/// What the expressions of a policy see.
struct Environments {
    conditions: Environment,
    rules: Environment,
    messages: Environment,
    patches: Environment,
}

impl Environments {
    fn new(spec: &Node<'_>) -> Self {
        let params = spec.get("paramKind").is_set();
        let all = Sees { params, authorizer: true, patches: false };
        Self {
            conditions: Environment::admission(all),
            rules: Environment::admission(all),
            messages: Environment::admission(Sees { authorizer: false, ..all }),
            patches: Environment::admission(Sees { patches: true, ..all }),
        }
    }

    /// Each variable sees those before it, and everything else sees all of them.
    fn with_variables(mut self, variables: &Node<'_>, out: &mut Findings) -> Self {
        if variables.len() == 0 {
            return self;
        }
        self.rules = self.rules.composing();
        for item in variables.items() {
            let ty = variable(&item, &self.rules, out);
            let name = item.get("name");
            let of = |environment: Environment| environment.with_composed(name.text(), ty.clone());
            self.rules = of(self.rules);
            self.messages = of(self.messages);
            self.patches = of(self.patches);
        }
        self
    }
}

fn failure_policy(spec: &Node<'_>, out: &mut Findings) {
    let policy = spec.get("failurePolicy");
    if policy.is_set() {
        policy.one_of(&["Fail", "Ignore"], out);
    } else {
        out.push(FieldError::required(&policy.path, ""));
    }
}

fn constraints(constraints: &Node<'_>, out: &mut Findings) {
    if !constraints.is_set() {
        out.push(FieldError::required(&constraints.path, ""));
        return;
    }
    match_resources(constraints, out);
    // At least one rule, while bindings may do without.
    let rules = constraints.get("resourceRules");
    if rules.len() == 0 {
        out.push(FieldError::required(&rules.path, ""));
    }
}

fn param_kind(kind: &Node<'_>, out: &mut Findings) {
    if !kind.is_set() {
        return;
    }
    let (version, name) = (kind.get("apiVersion"), kind.get("kind"));
    if version.require(out) {
        match meta::GroupVersion::parse(version.text()) {
            None => {
                let detail = format!("unexpected GroupVersion string: {}", version.text());
                out.push(version.invalid(detail));
            }
            Some(parsed) => {
                if !parsed.group.is_empty() {
                    let wrong = names::dns1123_subdomain(&parsed.group);
                    if !wrong.is_empty() {
                        out.push(version.invalid(wrong.join(",")));
                    }
                }
                let wrong = names::dns1035_label(&parsed.version);
                if parsed.version.is_empty() {
                    out.push(version.invalid("version must be specified"));
                } else if !wrong.is_empty() {
                    out.push(version.invalid(wrong.join(",")));
                }
            }
        }
    }
    if name.require(out) {
        let wrong = names::dns1035_label(&name.text().to_lowercase());
        if !wrong.is_empty() {
            let wrong = wrong.join(",");
            out.push(
                name.invalid(format!("may have mixed case, but should otherwise match: {wrong}")),
            );
        }
    }
}

fn variable(variable: &Node<'_>, environment: &Environment, out: &mut Findings) -> Type {
    let (name, value) = (variable.get("name"), variable.get("expression"));
    if name.text().is_empty() {
        out.push(FieldError::required(&name.path, "name is not specified"));
    } else if !is_identifier(name.text()) {
        out.push(name.invalid("must be a valid CEL identifier"));
    }
    if value.text().trim().is_empty() {
        out.push(FieldError::required(&value.path, "expression is not specified"));
        return Type::Dyn;
    }
    compiled(&value, environment, &[], out)
}

/// A name that an expression can use.
fn is_identifier(text: &str) -> bool {
    const RESERVED: [&str; 18] = [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
    ];
    names::c_identifier(text).is_empty()
        && !RESERVED.contains(&text)
        && !matches!(text, "var" | "void" | "while")
}

fn validation(validation: &Node<'_>, environments: &Environments, out: &mut Findings) {
    let (rule, message) = (validation.get("expression"), validation.get("message"));
    let (computed, reason) = (validation.get("messageExpression"), validation.get("reason"));
    if rule.text().trim().is_empty() {
        out.push(FieldError::required(&rule.path, "expression is not specified"));
    } else {
        compiled(&rule, &environments.rules, &[Type::Bool], out);
    }
    if !computed.text().is_empty() && computed.text().trim().is_empty() {
        out.push(computed.invalid("must be non-empty if specified"));
    } else if !computed.text().is_empty() {
        compiled(&computed, &environments.messages, &[Type::String], out);
    }
    let trimmed = message.text().trim();
    if !message.text().is_empty() && trimmed.is_empty() {
        out.push(message.invalid("must be non-empty if specified"));
    } else if trimmed.contains('\n') {
        out.push(message.invalid("must not contain line breaks"));
    } else if rule.text().trim().contains('\n') && trimmed.is_empty() {
        let detail = "message must be specified if expression contains line breaks";
        out.push(FieldError::required(&message.path, detail));
    }
    if reason.is_set() {
        let known = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        reason.one_of(&known, out);
    }
}

fn audit_annotations(
    annotations: &Node<'_>,
    policy: &str,
    environments: &Environments,
    out: &mut Findings,
) {
    if annotations.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        out.push(annotations.invalid(detail));
    }
    let mut seen = BTreeSet::new();
    for annotation in annotations.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        if policy.is_empty() {
            out.push(key.invalid_text("requires metadata.name be non-empty"));
        } else {
            let full = format!("{policy}/{}", key.text());
            let wrong = names::qualified_name(&full);
            out.extend(
                wrong.into_iter().map(|text| FieldError::invalid(&key.path, full.as_str(), text)),
            );
        }
        if value.text().trim().is_empty() {
            out.push(FieldError::required(&value.path, "valueExpression is not specified"));
        } else if value.text().len() > MAX_VALUE_EXPRESSION {
            let detail = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
            out.push(FieldError::required(&value.path, detail));
        } else {
            let wanted = [Type::String, Type::Null];
            compiled(&value, &environments.rules, &wanted, out);
        }
        if !seen.insert(key.text()) {
            out.push(FieldError::duplicate(&key.path, key.text()));
        }
    }
}

fn mutation(mutation: &Node<'_>, environment: &Environment, out: &mut Findings) {
    let kind = mutation.get("patchType");
    let members = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    if !kind.require(out) {
        return;
    }
    if !members.iter().any(|(known, _)| *known == kind.text()) {
        out.push(FieldError::not_supported(
            &kind.path,
            kind.text(),
            &["ApplyConfiguration", "JSONPatch"],
        ));
        return;
    }
    for (of, member) in members {
        let patch = mutation.get(member);
        if of == kind.text() {
            if patch.is_set() {
                patch_expression(&patch.get("expression"), of, environment, out);
            } else {
                let detail = format!("must be specified when patchType is {of}");
                out.push(FieldError::required(&patch.path, detail));
            }
        } else if patch.is_set() {
            let detail = format!("must not be specified when patchType is {}", kind.text());
            let ty = if of == "JSONPatch" { "JSONPatch" } else { "ApplyConfiguration" };
            let ty = format!("admissionregistration/v1.{ty}");
            out.push(patch.invalid(detail).shown_as(&ty));
        }
    }
}

fn patch_expression(
    expression: &Node<'_>,
    kind: &str,
    environment: &Environment,
    out: &mut Findings,
) {
    if expression.text().trim().is_empty() {
        out.push(FieldError::required(&expression.path, ""));
        return;
    }
    let wanted = match kind {
        "JSONPatch" => cel::admission::patches(),
        _ => cel::admission::configuration(),
    };
    compiled(expression, environment, &[wanted], out);
}

pub(crate) fn validating_binding(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    binding(&spec, out);
    let actions = spec.get("validationActions");
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        action.one_of(&["Audit", "Deny", "Warn"], out);
        if !seen.insert(action.text()) {
            out.push(FieldError::duplicate(&action.path, action.text()));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        out.push(actions.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure \
             information in the API response and headers serves no purpose)",
        ));
    }
    if actions.len() == 0 {
        let detail = "at least one validation action is required";
        out.push(FieldError::required(&actions.path, detail));
    }
}

pub(crate) fn mutating_binding(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    binding(&spec, out);
    mutable_operations(&spec.get("matchResources"), out);
}

fn binding(spec: &Node<'_>, out: &mut Findings) {
    spec.get("policyName").require_subdomain(out);
    let param = spec.get("paramRef");
    if param.is_set() {
        param_ref(&param, out);
    }
    let matching = spec.get("matchResources");
    if matching.is_set() {
        match_resources(&matching, out);
    }
}

fn param_ref(param: &Node<'_>, out: &mut Findings) {
    let (name, selector) = (param.get("name"), param.get("selector"));
    if !name.text().is_empty() {
        name.invalid_each(names::path_segment(name.text()), out);
        if selector.is_set() {
            let detail = "name and selector are mutually exclusive";
            out.push(name.forbidden(detail));
        }
    }
    if selector.is_set() {
        label_selector(&selector, out);
        if !name.text().is_empty() {
            let detail = "name and selector are mutually exclusive";
            out.push(selector.forbidden(detail));
        }
    }
    if name.text().is_empty() && !selector.is_set() {
        let detail = "one of name or selector must be specified";
        out.push(FieldError::required(&param.path, detail));
    }
    let action = param.get("parameterNotFoundAction");
    if action.is_set() && !action.text().is_empty() {
        action.one_of(&["Deny", "Allow"], out);
    } else {
        out.push(FieldError::required(&action.path, ""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::tests::{check, object};

    const GROUP: &str = "admissionregistration.k8s.io";

    fn rules() -> Value {
        json!([{"apiGroups": ["a"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["b"]}])
    }

    #[test]
    fn a_policy_says_what_it_applies_to_and_what_must_hold() {
        check(
            GROUP,
            "ValidatingAdmissionPolicy",
            object(json!({"paramKind": {"kind": "A B"}, "variables": [{"name": "if"}],
                "matchConstraints": {"resourceRules": []}})),
            &[
                "spec.paramKind.apiVersion: Required value",
                "spec.paramKind.kind: Invalid value: \"A B\": may have mixed case, but should \
                 otherwise match: a DNS-1035 label must consist of lower case alphanumeric \
                 characters or '-', start with an alphabetic character, and end with an \
                 alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
                 is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                "spec.matchConstraints.resourceRules: Required value",
                "spec.variables[0].name: Invalid value: \"if\": must be a valid CEL identifier",
                "spec.variables[0].expression: Required value: expression is not specified",
                "spec.validations: Required value: validations or auditAnnotations must contain at \
                 least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must \
                 contain at least one item",
            ],
        );
    }

    #[test]
    fn what_is_validated_has_a_reason_and_a_message_of_one_line() {
        let validations = json!([{"expression": "true\n== true"}, {"expression": "true", "message": "x\ny"},
            {"expression": " ", "reason": "Odd", "messageExpression": " "}]);
        check(
            GROUP,
            "ValidatingAdmissionPolicy",
            object(json!({"matchConstraints": {"resourceRules": rules()},
                "validations": validations,
                "auditAnnotations": [{"key": "k", "valueExpression": "'v'"}, {"key": "k"}]})),
            &[
                "spec.validations[0].message: Required value: message must be specified if \
                 expression contains line breaks",
                "spec.validations[1].message: Invalid value: \"x\\ny\": must not contain line \
                 breaks",
                "spec.validations[2].expression: Required value: expression is not specified",
                "spec.validations[2].messageExpression: Invalid value: \" \": must be non-empty if \
                 specified",
                "spec.validations[2].reason: Unsupported value: \"Odd\": supported values: \
                 \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not \
                 specified",
                "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
            ],
        );
    }

    #[test]
    fn a_mutation_is_of_its_type() {
        let mutations = json!([{"patchType": "JSONPatch", "applyConfiguration": {"expression": "x"}},
            {"patchType": "Odd"}, {}]);
        let mut rules = rules();
        rules[0]["operations"] = json!(["DELETE"]);
        check(
            GROUP,
            "MutatingAdmissionPolicy",
            object(json!({"matchConstraints": {"resourceRules": rules}, "mutations": mutations,
                "reinvocationPolicy": "Never"})),
            &[
                "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": \
                 supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
                "spec.mutations[0].applyConfiguration: Invalid value: {\"Expression\":\"x\"}: must \
                 not be specified when patchType is JSONPatch",
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is \
                 JSONPatch",
                "spec.mutations[1].patchType: Unsupported value: \"Odd\": supported values: \
                 \"ApplyConfiguration\", \"JSONPatch\"",
                "spec.mutations[2].patchType: Required value",
            ],
        );
    }

    #[test]
    fn a_binding_names_a_policy_and_what_to_do() {
        let param = json!({"name": "p", "selector": {}});
        check(
            GROUP,
            "ValidatingAdmissionPolicyBinding",
            object(json!({"paramRef": param, "validationActions": ["Deny", "Warn", "Deny"]})),
            &[
                "spec.policyName: Required value",
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Required value",
                "spec.validationActions[2]: Duplicate value: \"Deny\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Deny\"]: must not \
                 contain both Deny and Warn (repeating the same validation failure information in \
                 the API response and headers serves no purpose)",
            ],
        );
    }
}
