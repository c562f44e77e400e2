//! Flags about pods that files on the node describe.

use std::path::PathBuf;
use std::time::Duration;

use super::duration;
use crate::agent;

/// Arguments, with upstream's names.
#[derive(clap::Args)]
pub(crate) struct StaticPods {
    /// A file with the manifest of a static pod, or a directory of such files: pods that run on
    /// this node whether there is an API server or not.
    #[arg(long)]
    pod_manifest_path: Option<PathBuf>,
    /// How often these files are looked at although nothing told of a change.
    #[arg(long, default_value = "20s", value_parser = duration)]
    file_check_frequency: Duration,
}

impl StaticPods {
    /// What they say.
    pub(crate) fn read(&self) -> anyhow::Result<agent::StaticPods> {
        anyhow::ensure!(
            !self.file_check_frequency.is_zero(),
            "--file-check-frequency: must be longer than 0s"
        );
        Ok(agent::StaticPods {
            path: self.pod_manifest_path.clone(),
            check_frequency: self.file_check_frequency,
        })
    }
}
