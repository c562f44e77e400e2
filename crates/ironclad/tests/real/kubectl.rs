//! The verbs of `kubectl` that speak to the API server alone or to simple pods.

use crate::harness::{Harness, server};

#[test]
fn kubectl_reads_and_changes_objects() {
    let harness = Harness::start();
    let kubectl = |args: &str| {
        let words: Vec<&str> = args.split(' ').collect();
        harness.cluster.exec("kubectl", &words).unwrap()
    };
    harness.create("pods", &server("web"));
    harness.ready_pod("web");

    assert!(kubectl("cluster-info").contains("Kubernetes control plane"));
    assert!(kubectl("api-versions").lines().any(|line| line == "v1"));
    assert!(kubectl("api-resources").contains("deploy"));
    let explained = kubectl("explain pod.spec.containers.image");
    assert!(explained.contains("FIELD: image <string>"), "{explained}");
    assert!(kubectl("get nodes").contains("Ready"));

    kubectl("label pod web tier=front");
    kubectl("annotate pod web note=seen");
    assert_eq!(kubectl("get pods -l tier=front -o name"), "pod/web\n");
    assert_eq!(kubectl("get pod web -o jsonpath={.metadata.annotations.note}"), "seen");
    assert!(kubectl("get pod web -o yaml").starts_with("apiVersion: v1\n"));

    let described = kubectl("describe pod web");
    for expected in ["Successfully assigned default/web to node-1", "Status:           Running"] {
        assert!(described.contains(expected), "{described}");
    }
    assert!(kubectl("describe node node-1").contains("KubeletReady"));

    assert_eq!(kubectl("expose pod web --port=80 --target-port=8080"), "service/web exposed\n");
    let slices = harness.until("the service has endpoints", || {
        let slices = kubectl("get endpointslices -l kubernetes.io/service-name=web");
        slices.contains("10.42.0.").then_some(slices)
    });
    assert!(slices.contains("8080"), "{slices}");

    kubectl("create configmap c --from-literal=key=before");
    kubectl("patch configmap c -p {\"data\":{\"key\":\"after\"}}");
    assert_eq!(kubectl("get configmap c -o jsonpath={.data.key}"), "after");
    let mut edit = testkit::command("kubectl");
    edit.args(["edit", "configmap", "c"]).env("KUBECONFIG", harness.cluster.kubeconfig());
    edit.env("EDITOR", "sed -i s/after/edited/").env("HOME", harness.cluster.scratch());
    assert!(harness.cluster.host().run(move || edit.output()).unwrap().status.success());
    assert_eq!(kubectl("get configmap c -o jsonpath={.data.key}"), "edited");

    assert_eq!(kubectl("auth can-i create pods"), "yes\n");
    kubectl("delete pod web --now");
    assert!(!harness.exists("/api/v1/namespaces/default/pods/web"));
    let absent = harness.cluster.exec("kubectl", &["get", "pod", "absent"]).unwrap_err();
    let expected = "Error from server (NotFound): pods \"absent\" not found";
    assert!(absent.to_string().contains(expected), "{absent}");
}

#[test]
fn a_namespace_goes_with_everything_in_it() {
    let harness = Harness::start();
    let kubectl = |args: &str| {
        let words: Vec<&str> = args.split(' ').collect();
        harness.cluster.exec("kubectl", &words).unwrap()
    };
    kubectl("create namespace n");
    kubectl("create configmap c -n n");
    kubectl("create secret generic s -n n --from-literal=a=b");
    kubectl("delete namespace n --timeout=30s");
    assert!(!harness.exists("/api/v1/namespaces/n"));
    kubectl("create namespace n");
    assert_eq!(kubectl("get secrets -n n -o name"), "");
}

/// Writes a file for `kubectl` and gives its path.
fn file(harness: &Harness, name: &str, text: &str) -> String {
    let path = harness.cluster.scratch().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// What a command prints and whether it succeeds: some say with their code what they found.
fn attempt(harness: &Harness, args: &[&str]) -> (bool, String) {
    let mut kubectl = testkit::command("kubectl");
    kubectl.args(args).env("KUBECONFIG", harness.cluster.kubeconfig());
    kubectl.env("HOME", harness.cluster.scratch());
    let output = harness.cluster.host().run(move || kubectl.output()).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 0
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: IMAGE
        args: [serve, '8080']
";

#[test]
fn kubectl_compares_waits_and_applies() {
    let harness = Harness::start();
    let text = DEPLOYMENT.replace("IMAGE", testkit::POD_IMAGE);
    let path = file(&harness, "web.yaml", &text);
    let run = |args: &[&str]| harness.cluster.exec("kubectl", args).unwrap();

    // A dry run tells what would be, with all that the server adds, and makes nothing.
    let dry = run(&["apply", "-f", &path, "--dry-run=server", "-o", "yaml"]);
    assert!(dry.contains("progressDeadlineSeconds: 600"), "{dry}");
    assert_eq!(run(&["get", "deployments", "-o", "name"]), "");
    let (is_same, difference) = attempt(&harness, &["diff", "-f", &path]);
    assert!(!is_same && difference.contains("+  name: web"), "{difference}");

    run(&["apply", "-f", &path]);
    run(&["wait", "deployment/web", "--for=condition=Available", "--timeout=60s"]);
    run(&[
        "wait",
        "deployment/web",
        "--for=jsonpath={.status.conditions[?(@.type==\"Progressing\")].status}=True",
        "--timeout=60s",
    ]);
    assert_eq!(attempt(&harness, &["diff", "-f", &path]), (true, String::new()));
    let wider = file(&harness, "wider.yaml", &text.replace("replicas: 0", "replicas: 2"));
    let (is_same, difference) = attempt(&harness, &["diff", "-f", &wider]);
    assert!(!is_same && difference.contains("+  replicas: 2"), "{difference}");
    let rollout = run(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(rollout.contains("successfully rolled out"), "{rollout}");

    // Server-side, the fields that another manager owns are in dispute.
    let (applied, dispute) =
        attempt(&harness, &["apply", "--server-side", "--field-manager=o", "-f", &wider]);
    assert!(
        !applied && dispute.contains("conflict with \"kubectl-client-side-apply\""),
        "{dispute}"
    );
    run(&["apply", "--server-side", "--field-manager=o", "--force-conflicts", "-f", &wider]);
    assert_eq!(run(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]), "2");

    run(&["delete", "deployment", "web", "--wait=false"]);
    run(&["wait", "deployment/web", "--for=delete", "--timeout=60s"]);
    let (waited, why) = attempt(&harness, &["wait", "pod/none", "--for=delete", "--timeout=1s"]);
    assert!(waited, "{why}");
}

#[test]
fn kubectl_prints_in_every_form() {
    let harness = Harness::start();
    let run = |args: &[&str]| harness.cluster.exec("kubectl", args).unwrap();
    run(&["create", "configmap", "c", "--from-literal=a=1", "--from-literal=b=2"]);
    let get = |form: &str| run(&["get", "configmap", "c", "-o", form]);
    assert_eq!(get("name"), "configmap/c\n");
    let json: serde_json::Value = serde_json::from_str(&get("json")).unwrap();
    assert_eq!(json["data"], serde_json::json!({"a": "1", "b": "2"}));
    assert!(get("yaml").contains("kind: ConfigMap\n"));
    assert!(get("wide").starts_with("NAME"));
    assert_eq!(get("jsonpath={.data.a} {.metadata.name}"), "1 c");
    assert_eq!(get("jsonpath-as-json={.data.b}").trim(), "[\n    \"2\"\n]");
    assert_eq!(get("go-template={{range $k, $v := .data}}{{$k}}={{$v}} {{end}}"), "a=1 b=2 ");
    let columns = get("custom-columns=WHO:.metadata.name,A:.data.a,NONE:.data.z");
    let words: Vec<&str> = columns.split_whitespace().collect();
    assert_eq!(words, ["WHO", "A", "NONE", "c", "1", "<none>"]);
    let listed = run(&["get", "configmaps", "--show-labels", "--no-headers", "-A"]);
    assert!(listed.lines().all(|line| line.split_whitespace().count() >= 5), "{listed}");
    let sorted = run(&["get", "namespaces", "--sort-by=.metadata.name", "-o", "name"]);
    let names: Vec<&str> = sorted.lines().collect();
    assert!(names.is_sorted() && names.len() >= 4, "{sorted}");
    let wide = run(&["get", "nodes", "-o", "wide"]);
    assert!(wide.contains("INTERNAL-IP") && wide.contains("CONTAINER-RUNTIME"), "{wide}");
}

#[test]
fn kubectl_patches_in_every_way() {
    let harness = Harness::start();
    let run = |args: &[&str]| harness.cluster.exec("kubectl", args).unwrap();
    let text = DEPLOYMENT.replace("IMAGE", testkit::POD_IMAGE);
    let path = file(&harness, "web.yaml", &text);
    run(&["create", "-f", &path]);
    let patch = |kind: &str, patch: &str| {
        run(&["patch", "deployment", "web", "--type", kind, "-p", patch]);
    };
    let read = |path: &str| run(&["get", "deployment", "web", "-o", &format!("jsonpath={path}")]);
    // A strategic merge finds the container by its name and leaves the rest of it.
    patch(
        "strategic",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"E","value":"1"}]}]}}}}"#,
    );
    assert_eq!(read("{.spec.template.spec.containers[0].env[0].value}"), "1");
    assert_eq!(read("{.spec.template.spec.containers[0].image}"), testkit::POD_IMAGE);
    patch("merge", r#"{"metadata":{"labels":{"l":"m"}},"spec":{"minReadySeconds":5}}"#);
    assert_eq!(read("{.metadata.labels.l} {.spec.minReadySeconds}"), "m 5");
    patch("json", r#"[{"op":"replace","path":"/spec/minReadySeconds","value":7}]"#);
    assert_eq!(read("{.spec.minReadySeconds}"), "7");
    run(&[
        "patch",
        "deployment",
        "web",
        "--subresource=scale",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":0}}"#,
    ]);
    run(&["scale", "deployment", "web", "--replicas=0"]);
    run(&["set", "env", "deployment/web", "F=2"]);
    assert_eq!(read("{.spec.template.spec.containers[0].env[*].name}"), "E F");
    let (patched, why) = attempt(
        &harness,
        &[
            "patch",
            "deployment",
            "web",
            "--type=json",
            "-p",
            r#"[{"op":"test","path":"/spec/minReadySeconds","value":1}]"#,
        ],
    );
    assert!(!patched && why.contains("The request is invalid"), "{why}");
}

#[test]
fn kubectl_asks_who_may_do_what_and_what_things_mean() {
    let harness = Harness::start();
    let run = |args: &[&str]| harness.cluster.exec("kubectl", args).unwrap();
    let who = run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert_eq!(who, "kubernetes-admin");
    run(&["create", "role", "reader", "--verb=get,list", "--resource=configmaps"]);
    run(&["create", "rolebinding", "reader", "--role=reader", "--user=jane"]);
    let can = |args: &[&str]| {
        let all = [&["auth", "can-i"], args, &["--as", "jane"]].concat();
        attempt(&harness, &all).0
    };
    assert!(can(&["get", "configmaps"]) && can(&["list", "configmaps"]));
    assert!(!can(&["create", "configmaps"]) && !can(&["get", "configmaps", "-n", "kube-system"]));
    let all = run(&["auth", "can-i", "--list", "--as", "jane"]);
    assert!(
        all.lines().any(|line| line.starts_with("configmaps") && line.contains("[get list]")),
        "{all}"
    );
    let (_, refused) = attempt(&harness, &["get", "secrets", "--as", "jane"]);
    let expected = "secrets is forbidden: User \"jane\" cannot list resource \"secrets\"";
    assert!(refused.contains(expected), "{refused}");

    let explained = run(&["explain", "deployment.spec.strategy"]);
    for part in [
        "GROUP:      apps",
        "VERSION:    v1",
        "DESCRIPTION:",
        "rollingUpdate\t<RollingUpdateDeployment>",
    ] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let tree = run(&["explain", "job", "--recursive"]);
    assert!(tree.contains("backoffLimit") && tree.contains("containerPort"), "{tree}");
    let (_, unknown) = attempt(&harness, &["explain", "pod.spec.nonsense"]);
    assert!(unknown.contains("field \"nonsense\" does not exist"), "{unknown}");
}
