//! Joining a cluster: a node that has no certificate asks for one, as upstream
//! `pkg/kubelet/certificate/bootstrap`.
//!
//! The key is kept until the certificate is there, so that a kubelet that is started again finds
//! what it asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Client, ClientError, Credentials, KubeConfig, Remote};
use clock::SharedClock;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use stdx::shutdown::Shutdown;

/// Who signs certificates of kubelets.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// How often the request is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How long it may take until somebody has approved it: upstream's limit.
const WAIT: Duration = Duration::from_secs(15 * 60);

/// Arguments, with upstream's names.
#[derive(clap::Args)]
pub(crate) struct Joining {
    /// How to reach the API server when --kubeconfig is not there, or its certificate has expired:
    /// with it a certificate is asked for, and --kubeconfig is written.
    #[arg(long)]
    bootstrap_kubeconfig: Option<PathBuf>,
}

/// A node that may have to join.
pub(crate) struct Joiner<'a> {
    pub(crate) kubeconfig: &'a Path,
    pub(crate) data_dir: &'a Path,
    pub(crate) node_name: &'a str,
    pub(crate) clock: &'a SharedClock,
    pub(crate) shutdown: &'a Shutdown,
}

impl Joining {
    /// Makes sure that the kubeconfig is there. Says whether the kubelet may go on: it may not when
    /// it was told to end meanwhile.
    pub(crate) async fn join(&self, joiner: &Joiner<'_>) -> anyhow::Result<bool> {
        let Some(bootstrap) = &self.bootstrap_kubeconfig else { return Ok(true) };
        if joiner.has_joined() {
            return Ok(true);
        }
        let bootstrap = KubeConfig::load(bootstrap)?;
        anyhow::ensure!(
            bootstrap.tls_server_name.is_none(),
            "--bootstrap-kubeconfig: tls-server-name is not supported there"
        );
        tokio::select! {
            joined = joiner.join(&bootstrap) => joined.map(|()| true),
            () = joiner.shutdown.begun() => Ok(false),
        }
    }
}

impl Joiner<'_> {
    fn has_joined(&self) -> bool {
        let Ok(config) = KubeConfig::load(self.kubeconfig) else { return false };
        match config.credentials {
            Credentials::Certificate { certificate, .. } => {
                setup::is_current(&certificate, self.clock.now())
            }
            _ => false,
        }
    }

    async fn join(&self, bootstrap: &KubeConfig) -> anyhow::Result<()> {
        let agent = format!("kubelet/{}", telemetry::VERSION);
        let remote = Remote::new(bootstrap, &agent, Arc::clone(self.clock))
            .context("--bootstrap-kubeconfig cannot be used")?;
        let client = Client::new(Arc::new(remote));
        let directory = self.data_dir.join("kubelet/pki");
        let request = setup::node_request(&directory, self.node_name)?;
        let certificate = self.certificate(&client, &request).await?;
        let authority = String::from_utf8(bootstrap.certificate_authority.clone())
            .context("the authority in --bootstrap-kubeconfig is no PEM")?;
        let client = setup::KeyedCertificate { certificate, key: request.keyed.key.clone() };
        let access = setup::kubeconfig::Access {
            server: &bootstrap.server,
            authority: &authority,
            client: &client,
        };
        setup::kubeconfig::write(self.kubeconfig, "default", &access)?;
        request.done();
        Ok(())
    }

    /// Asks for a certificate and waits for it.
    async fn certificate(
        &self,
        client: &Client,
        request: &setup::NodeRequest,
    ) -> anyhow::Result<String> {
        let until = self.clock.monotonic() + WAIT;
        let asked = asked(request);
        loop {
            match ask(client, &request.name, &asked).await {
                Ok(answer) => {
                    if let Some(certificate) = answered(&answer)? {
                        return Ok(certificate);
                    }
                }
                // The server may be starting, or the token be on its way.
                Err(error) => {
                    let error = telemetry::Chain(&error).to_string();
                    tracing::warn!(error, "certificate not asked for, trying again");
                }
            }
            let waited_enough = self.clock.monotonic() >= until;
            anyhow::ensure!(
                !waited_enough,
                "certificate signing request {} was not approved within {} minutes",
                request.name,
                WAIT.as_secs() / 60
            );
            self.clock.sleep(EVERY).await;
        }
    }
}

fn asked(request: &setup::NodeRequest) -> CertificateSigningRequest {
    let usages = ["digital signature", "client auth"];
    let mut asked = CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.keyed.certificate.clone().into_bytes()),
            signer_name: SIGNER.to_owned(),
            usages: Some(usages.map(str::to_owned).into()),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    asked.metadata.name = Some(request.name.clone());
    asked
}

async fn ask(
    client: &Client,
    name: &str,
    asked: &CertificateSigningRequest,
) -> Result<CertificateSigningRequest, ClientError> {
    let api = client.api::<CertificateSigningRequest>("");
    match api.get_opt(name).await? {
        Some(found) => Ok(found),
        None => api.create(asked).await,
    }
}

/// The certificate, if it is there.
fn answered(request: &CertificateSigningRequest) -> anyhow::Result<Option<String>> {
    let Some(status) = &request.status else { return Ok(None) };
    for condition in status.conditions.iter().flatten() {
        if matches!(condition.type_.as_str(), "Denied" | "Failed") {
            bail!(
                "certificate signing request {} is {}, reason: {}, message: {}",
                request.metadata.name.as_deref().unwrap_or_default(),
                condition.type_.to_lowercase(),
                condition.reason.as_deref().unwrap_or_default(),
                condition.message.as_deref().unwrap_or_default()
            );
        }
    }
    let Some(ByteString(certificate)) = &status.certificate else { return Ok(None) };
    if certificate.is_empty() {
        return Ok(None);
    }
    let pem = String::from_utf8(certificate.clone()).context("the certificate is no PEM")?;
    Ok(Some(pem))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    };

    use super::*;

    #[test]
    fn a_request_that_is_denied_ends_the_kubelet_with_the_reason() {
        let mut request = CertificateSigningRequest::default();
        request.metadata.name = Some("node-csr-1".to_owned());
        assert_eq!(answered(&request).unwrap(), None);
        let condition = CertificateSigningRequestCondition {
            type_: "Denied".to_owned(),
            reason: Some("Stranger".to_owned()),
            message: Some("who is it".to_owned()),
            ..CertificateSigningRequestCondition::default()
        };
        request.status = Some(CertificateSigningRequestStatus {
            conditions: Some(vec![condition]),
            ..CertificateSigningRequestStatus::default()
        });
        assert_eq!(
            answered(&request).unwrap_err().to_string(),
            "certificate signing request node-csr-1 is denied, reason: Stranger, message: who is it"
        );
    }
}
