"""The Python client: typed calls, a watch, server-side apply, exec. Prints what it saw as JSON."""

import json
import sys
import threading

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

NAMESPACE = "default"


def main():
    kubeconfig, pod = sys.argv[1:3]
    config.load_kube_config(config_file=kubeconfig)
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    seen = {"version": client.VersionApi().get_code().git_version}

    # A watch from the list's version sees what happens afterwards, in order.
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    events = []

    def follow():
        arguments = {
            "namespace": NAMESPACE,
            "resource_version": version,
            "field_selector": "metadata.name=python",
            "timeout_seconds": 30,
        }
        for event in watch.Watch().stream(core.list_namespaced_config_map, **arguments):
            events.append([event["type"], event["object"].data])
            if event["type"] == "DELETED":
                return

    follower = threading.Thread(target=follow)
    follower.start()
    metadata = client.V1ObjectMeta(name="python", labels={"app": "python"})
    made = core.create_namespaced_config_map(
        NAMESPACE, client.V1ConfigMap(metadata=metadata, data={"a": "1"})
    )
    core.patch_namespaced_config_map("python", NAMESPACE, {"data": {"b": "2"}})
    stale = made
    stale.data = {"a": "late"}
    try:
        core.replace_namespaced_config_map("python", NAMESPACE, stale)
        seen["conflict"] = None
    except ApiException as error:
        seen["conflict"] = [error.status, json.loads(error.body)["reason"]]
    core.delete_namespaced_config_map("python", NAMESPACE)
    follower.join(timeout=60)
    seen["events"] = events

    # What the server defaults comes back in typed form.
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "python"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="none:1")]),
    )
    spec = client.V1DeploymentSpec(
        replicas=0,
        selector=client.V1LabelSelector(match_labels={"app": "python"}),
        template=template,
    )
    deployment = client.V1Deployment(metadata=client.V1ObjectMeta(name="python"), spec=spec)
    deployment = apps.create_namespaced_deployment(NAMESPACE, deployment)
    strategy = deployment.spec.strategy
    seen["strategy"] = [strategy.type, strategy.rolling_update.max_surge]
    scale = apps.read_namespaced_deployment_scale("python", NAMESPACE)
    seen["scale"] = [scale.spec.replicas, scale.status.selector]
    apps.delete_namespaced_deployment("python", NAMESPACE)

    command = ["/testkit-pod", "print", "from", "python"]
    seen["exec"] = stream(
        core.connect_get_namespaced_pod_exec,
        pod,
        NAMESPACE,
        command=command,
        stderr=True,
        stdin=False,
        stdout=True,
        tty=False,
    )
    seen["log"] = core.read_namespaced_pod_log(pod, NAMESPACE, tail_lines=1)
    print(json.dumps(seen))


main()
