//! A mutating and a validating webhook on every pod.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use testkit::{Authority, Host};

use super::{OBJECTS, Sum, TURNS};
use crate::bench::Figure;
use crate::bench::api::Load;
use crate::bench::server::{Server, connect, send};
use crate::run::{cargo, run, target_dir};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const PORT: u16 = 9443;

/// The program of the webhooks, beside the one that is measured; it is built when it is not there.
pub(super) fn program(ironclad: &Path) -> anyhow::Result<PathBuf> {
    let beside = ironclad.with_file_name("testkit-extension");
    if beside.exists() {
        return Ok(beside);
    }
    run(cargo(&["build", "--package", "testkit", "--bin", "testkit-extension", "--release"]))?;
    target_dir().map(|target| target.join("release/testkit-extension")).context("the target")
}

pub(super) fn measure(server: &Server, program: &Path, in_flight: usize) -> anyhow::Result<Figure> {
    let authority = Authority::new()?;
    let webhook = Webhook::start(server, program, &authority)?;
    let (pid, bundle) = (server.pid(), STANDARD.encode(&authority.pem));
    let figure = server.run(async move |kubeconfig| {
        let load = Load::prepare(&kubeconfig, pid, in_flight).await?;
        let client = connect(&kubeconfig)?;
        let (mut without, mut with) = (Sum::default(), Sum::default());
        for turn in 0..TURNS {
            let first = turn * 2 * OBJECTS;
            without.add(&load.create(first..first + OBJECTS).await?);
            for (kind, path) in [("mutating", "/label"), ("validating", "/allow")] {
                let body = configuration(path, &bundle).to_string();
                let url = format!("{CONFIGURATIONS}/{kind}webhookconfigurations");
                send(&client, Method::POST, &url, body.into()).await?;
            }
            with.add(&load.create(first + OBJECTS..first + 2 * OBJECTS).await?);
            for kind in ["mutating", "validating"] {
                let url = format!("{CONFIGURATIONS}/{kind}webhookconfigurations/bench");
                send(&client, Method::DELETE, &url, Bytes::new()).await?;
            }
        }
        let (without, with) = (without.ms(), with.ms());
        Ok(Figure::new(
            "API: create of a pod with a mutating and a validating webhook",
            format!(
                "{:.3} ms of CPU more than {without:.3}, {:.3} for each",
                with - without,
                (with - without) / 2.0
            ),
        ))
    });
    drop(webhook);
    figure
}

fn configuration(path: &str, bundle: &str) -> Value {
    let url = format!("https://{}:{PORT}{path}", Host::ADDRESS);
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
        "operations": ["CREATE"]}]);
    json!({"metadata": {"name": "bench"}, "webhooks": [{"name": "bench.example.com",
        "clientConfig": {"url": url, "caBundle": bundle}, "rules": rules,
        "sideEffects": "None", "admissionReviewVersions": ["v1"]}]})
}

/// The server of the webhooks: a process of its own, which goes with this value.
struct Webhook {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Webhook {
    fn start(server: &Server, program: &Path, authority: &Authority) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("ironclad-bench-").tempdir()?;
        let (certificate, key) = authority.server(&[&Host::ADDRESS.to_string()])?;
        let paths = [directory.path().join("crt"), directory.path().join("key")];
        std::fs::write(&paths[0], certificate)?;
        std::fs::write(&paths[1], key)?;
        let mut command = testkit::command(program);
        command.arg(PORT.to_string()).args(&paths).stdin(Stdio::null()).stdout(Stdio::null());
        let child = server.on_host(move || command.spawn())?;
        Ok(Self { child, _directory: directory })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        // There is nothing in it to lose.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
