"""An operator of kopf: a crate of bottles has a ConfigMap, and a status that says so."""

import kopf
import kubernetes

GROUP = "drinks.example.com"


@kopf.on.startup()
def configure(settings, **_):
    # Events are of no interest here.
    settings.posting.enabled = False


@kopf.on.create(GROUP, "v1", "crates")
@kopf.on.update(GROUP, "v1", "crates", field="spec")
def fill(spec, name, namespace, **_):
    kubernetes.config.load_kube_config()
    api = kubernetes.client.CoreV1Api()
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"crate-{name}"},
        "data": {"bottles": str(spec["bottles"])},
    }
    kopf.adopt(body)
    try:
        api.create_namespaced_config_map(namespace, body)
    except kubernetes.client.ApiException as error:
        if error.status != 409:
            raise
        api.patch_namespaced_config_map(body["metadata"]["name"], namespace, body)
    return {"bottles": spec["bottles"]}


@kopf.on.delete(GROUP, "v1", "crates")
def empty(name, namespace, **_):
    kubernetes.config.load_kube_config()
    api = kubernetes.client.CoreV1Api()
    api.patch_namespaced_config_map(f"crate-{name}", namespace, {"data": {"emptied": "yes"}})
