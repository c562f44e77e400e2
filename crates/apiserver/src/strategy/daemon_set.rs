//! Daemon sets: upstream's counter of template versions, in the annotation that took its field's place.

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(super) struct DaemonSets;

impl Strategy for DaemonSets {
    fn prepare_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        object["metadata"]["annotations"][TEMPLATE_GENERATION] = json!("1");
        Ok(())
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        let had = &old["metadata"]["annotations"][TEMPLATE_GENERATION];
        let had: i64 = had.as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        let is_other = object["spec"]["template"] != old["spec"]["template"];
        let now = if is_other { had + 1 } else { had };
        object["metadata"]["annotations"][TEMPLATE_GENERATION] = json!(now.to_string());
        Ok(())
    }
}
