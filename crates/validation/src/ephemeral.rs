//! Ephemeral containers: added to running pods to look at them, and then there to stay.

use std::collections::BTreeSet;

use crate::container::{Surroundings, common};
use crate::node::{Findings, Node};
use crate::pod;
use crate::{FieldError, Path, difference, printed};

/// What such a container may not have, in the order of the internal struct.
const REFUSED: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];
const DETAIL: &str = "cannot be set for an Ephemeral Container";

/// The ephemeral containers of a pod.
pub(crate) fn validate(spec: &Node<'_>, around: &Surroundings<'_>, out: &mut Findings) {
    let others: BTreeSet<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| spec.get(list).items())
        .map(|container| container.get("name").text())
        .collect();
    let mut seen = others.clone();
    for container in spec.get("ephemeralContainers").items() {
        common(&container, around, out);
        let (name, target) = (container.get("name"), container.get("targetContainerName"));
        if !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
        if !target.text().is_empty() && !others.contains(target.text()) {
            out.push(FieldError::not_found(&target.path, target.text()));
        }
        for field in REFUSED {
            let value = container.get(field);
            if value.is_set() && (value.len() > 0 || value.value.is_string()) {
                out.push(value.forbidden(DETAIL));
            }
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.get(field).text().is_empty() {
                    out.push(mount.get(field).forbidden(DETAIL));
                }
            }
        }
    }
}

/// Containers may be added; those that are there stay as they are.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    pod::changed(new, out);
    if pod::is_mirror(new) {
        let detail = "static pods do not support ephemeral containers";
        out.push(FieldError::forbidden(&Path::default(), detail));
        return;
    }
    let list = new.get("spec").get("ephemeralContainers");
    for before in old.get("spec").get("ephemeralContainers").items() {
        let name = before.get("name").text();
        match list.items().find(|container| container.get("name").text() == name) {
            None => {
                out.push(list.forbidden(format!(
                    "existing ephemeral containers {name:?} may not be removed\n"
                )))
            }
            Some(container) if container.value != before.value => {
                let shown = |value| printed::indented("core/v1.EphemeralContainer", value);
                let diff = difference::unified(&shown(before.value), &shown(container.value));
                out.push(list.forbidden(format!(
                    "existing ephemeral containers {name:?} may not be changed\n{diff}"
                )));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::tests::check_update;

    fn pod(containers: Value) -> Value {
        json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "containers": [{"name": "c", "image": "i"}], "ephemeralContainers": containers}})
    }

    #[test]
    fn an_ephemeral_container_only_looks() {
        let bad = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 1}],
            "targetContainerName": "x"}]);
        check_update(
            "",
            "Pod",
            "ephemeralcontainers",
            (&pod(bad), &pod(json!([]))),
            &[
                "spec.ephemeralContainers[0].name: Duplicate value: \"c\"",
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral \
                 Container",
            ],
        );
    }

    #[test]
    fn what_was_added_stays() {
        let with = |image: &str| pod(json!([{"name": "d", "image": image}]));
        check_update(
            "",
            "Pod",
            "ephemeralcontainers",
            (&with("b"), &with("a")),
            &[
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be \
               changed\n@@ -1,6 +1,6 @@\n {\n  \"Name\": \"d\",\n- \"Image\": \"a\",\n\
               + \"Image\": \"b\",\n  \"Command\": null,\n  \"Args\": null,\n  \
               \"WorkingDir\": \"\",\n",
            ],
        );
        check_update(
            "",
            "Pod",
            "ephemeralcontainers",
            (&pod(json!([])), &with("a")),
            &[
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be \
               removed\n",
            ],
        );
    }
}
