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
    /// An address with the manifest of a static pod, or of a list of them.
    #[arg(long)]
    manifest_url: Option<http::Uri>,
    /// Headers sent to that address, as name:value, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = header)]
    manifest_url_header: Vec<(String, String)>,
    /// How often the address is looked at.
    #[arg(long, default_value = "20s", value_parser = duration)]
    http_check_frequency: Duration,
}

impl StaticPods {
    /// What they say.
    pub(crate) fn read(&self) -> anyhow::Result<agent::StaticPods> {
        anyhow::ensure!(
            !self.file_check_frequency.is_zero(),
            "--file-check-frequency: must be longer than 0s"
        );
        anyhow::ensure!(
            !self.http_check_frequency.is_zero(),
            "--http-check-frequency: must be longer than 0s"
        );
        let url = self.manifest_url.as_ref().map(|url| {
            let scheme = url.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
            anyhow::ensure!(
                scheme.is_some() && url.host().is_some(),
                "--manifest-url: {url} is no address of scheme http or https"
            );
            Ok(kubelet::ManifestUrl {
                url: url.to_string(),
                headers: self.manifest_url_header.clone(),
                check_frequency: self.http_check_frequency,
            })
        });
        Ok(agent::StaticPods {
            url: url.transpose()?,
            path: self.pod_manifest_path.clone(),
            check_frequency: self.file_check_frequency,
        })
    }
}

/// A header as a flag has it.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is name:value")?;
    let (name, value) = (name.trim(), value.trim());
    http::HeaderName::try_from(name).map_err(|error| error.to_string())?;
    http::HeaderValue::try_from(value).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}
