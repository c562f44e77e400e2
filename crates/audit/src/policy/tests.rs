//! Rules against requests, and files that are no policy.

use super::*;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: Metadata
  userGroups: ["system:authenticated"]
  nonResourceURLs: ["/api*", "/version"]
- level: Request
  resources: [{group: "", resources: [configmaps], resourceNames: [chosen]}]
  namespaces: [kube-system]
  omitManagedFields: true
- level: Metadata
  resources: [{group: "", resources: ["pods/log", "pods/status"]}]
- level: None
  resources: [{group: apps, resources: ["*/scale"]}]
- level: RequestResponse
  resources: [{group: apps, resources: ["deployments/*"]}, {group: "batch"}]
  omitStages: [ResponseStarted]
- level: Request
  resources: [{group: "*", resources: ["*"]}]
  namespaces: ["a", ""]
"#;

/// `user groups verb path` for other paths, `user groups verb group resource sub namespace name`
/// for resources; `-` is nothing.
fn evaluate(request: &str) -> Decision {
    let words: Vec<&str> =
        request.split_whitespace().map(|word| if word == "-" { "" } else { word }).collect();
    let groups: Vec<String> = words[1].split(',').map(str::to_owned).collect();
    let mut asked = Asked { user: words[0], groups: &groups, verb: words[2], ..Asked::default() };
    if words.len() == 4 {
        asked.path = words[3];
    } else {
        let [group, resource, subresource, namespace, name] = words[3..] else {
            panic!("{request}")
        };
        asked = Asked { is_resource: true, group, resource, subresource, namespace, name, ..asked };
    }
    Policy::parse(POLICY.as_bytes()).unwrap().evaluate(&asked)
}

#[test]
fn the_first_rule_that_matches_decides() {
    let cases = [
        ("system:kube-proxy g watch - endpoints - a -", Level::None),
        ("system:kube-proxy g list - endpoints - a -", Level::Request),
        ("jane g watch - endpoints - a -", Level::Request),
        ("jane system:authenticated get /api", Level::Metadata),
        ("jane x,system:authenticated get /apis/apps", Level::Metadata),
        ("jane system:authenticated get /version", Level::Metadata),
        ("jane system:authenticated get /versions", Level::None),
        ("jane other get /api", Level::None),
        ("jane g get - configmaps - kube-system chosen", Level::Request),
        ("jane g get - configmaps - kube-system other", Level::None),
        ("jane g get - pods log b p", Level::Metadata),
        ("jane g get - pods exec b p", Level::None),
        ("jane g get - pods - b p", Level::None),
        ("jane g update apps statefulsets scale b s", Level::None),
        ("jane g update apps deployments scale b s", Level::None),
        ("jane g update apps deployments status b s", Level::RequestResponse),
        ("jane g update apps deployments - b s", Level::RequestResponse),
        ("jane g get batch jobs - b j", Level::RequestResponse),
        ("jane g get - nodes - - n", Level::Request),
        ("jane g get example.com things status a n", Level::Request),
        ("jane g get example.com things - c n", Level::None),
    ];
    for (request, level) in cases {
        assert_eq!(evaluate(request).level, level, "{request}");
    }
}

#[test]
fn stages_are_omitted_by_policy_and_by_rule() {
    let decision = evaluate("jane g get batch jobs - b j");
    assert!(decision.omit_stages.contains(Stage::RequestReceived));
    assert!(decision.omit_stages.contains(Stage::ResponseStarted));
    assert!(!decision.omit_stages.contains(Stage::ResponseComplete));
    let decision = evaluate("jane g get - nodes - - n");
    assert!(!decision.omit_stages.contains(Stage::ResponseStarted));
    assert!(!decision.omits_managed_fields);
    assert!(evaluate("jane g get - configmaps - kube-system chosen").omits_managed_fields);
}

fn refused(body: &str) -> String {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{body}");
    Policy::parse(text.as_bytes()).unwrap_err()
}

#[test]
fn what_is_wrong_with_a_policy_is_told_in_upstreams_words() {
    assert_eq!(refused(""), "loaded illegal policy with 0 rules");
    assert_eq!(
        refused("rules: [{level: Some}]"),
        "rules[0].level: Unsupported value: \"Some\": supported values: \"None\", \"Metadata\", \
         \"Request\", \"RequestResponse\""
    );
    assert_eq!(
        refused("rules: [{}, {level: None, omitStages: [Later]}]"),
        "[rules[0].level: Required value, rules[1].omitStages[0]: Invalid value: \"Later\": allowed \
         stages are RequestReceived,ResponseStarted,ResponseComplete,Panic]"
    );
    assert_eq!(
        refused("rules: [{level: None, nonResourceURLs: [healthz, /a*b], namespaces: [a]}]"),
        "[rules[0].nonResourceURLs[0]: Invalid value: \"healthz\": non-resource URL rules must begin \
         with a '/' character, rules[0].nonResourceURLs[1]: Invalid value: \"/a*b\": non-resource \
         URL wildcards '*' must be the final character of the rule, rules[0].nonResourceURLs: \
         Invalid value: [\"healthz\",\"/a*b\"]: rules cannot apply to both regular resources and \
         non-resource URLs]"
    );
    assert_eq!(
        refused("rules: [{level: None, resources: [{group: a/v1, resourceNames: [x]}]}]"),
        "[rules[0].resources.group: Invalid value: \"a/v1\": a lowercase RFC 1123 subdomain must \
         consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
         alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), \
         rules[0].resources.resourceNames: Invalid value: [\"x\"]: using resourceNames requires at \
         least one resource]"
    );
}

#[test]
fn other_versions_and_kinds_are_unknown() {
    let parse = |text: &str| Policy::parse(text.as_bytes()).unwrap_err();
    assert_eq!(
        parse("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]"),
        "failed decoding: no kind \"Policy\" is registered for version \"audit.k8s.io/v1beta1\" in \
         scheme \"k8s.io/apiserver/pkg/audit/scheme.go:30\""
    );
    assert_eq!(
        parse("rules: [{level: None}]"),
        "unknown group version field audit.k8s.io/__internal, Kind=Policy in policy"
    );
    assert!(
        parse("apiVersion: audit.k8s.io/v1\nrules: [{level: 1}]")
            .starts_with("failed decoding: json: cannot unmarshal number into Go struct field")
    );
    assert!(parse("rules: [").starts_with("failed decoding: "));
}

#[test]
fn unknown_fields_are_passed_over_with_a_warning() {
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, color: red}]";
    let policy = Policy::parse(text.as_bytes()).unwrap();
    assert_eq!(policy.warnings(), ["unknown field \"rules[0].color\""]);
}
