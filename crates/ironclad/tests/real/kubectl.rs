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
