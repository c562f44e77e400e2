//! Kubeconfig files.

use std::cell::OnceCell;

use client::KubeConfig;
use tempfile::TempDir;

use super::Target;

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "clusters:",
        "contexts:",
        "users:",
        "current-context:",
        "server: https://a:1",
        "certificate-authority-data: ",
        "client-key-data: ",
        "token: ",
        "- name: a",
        "  user:",
        "  cluster:",
        "insecure-skip-tls-verify: true",
        "YQ==",
        "&a",
        "*a",
    ],
    memory_per_byte: 1024,
    nanos_per_byte: 30_000,
    ..Target::new("kubeconfig", seeds, run)
};

thread_local! {
    static DIRECTORY: OnceCell<TempDir> = const { OnceCell::new() };
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        b"apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://a:6443\n    \
          certificate-authority-data: YQ==\ncontexts:\n- name: x\n  context:\n    cluster: c\n    \
          user: u\ncurrent-context: x\nusers:\n- name: u\n  user:\n    token: t\n"
            .to_vec(),
    ]
}

fn run(input: &[u8]) {
    // Files that it names are looked for; special ones would be waited for.
    if input.windows(4).any(|window| window == b"/dev") {
        return;
    }
    DIRECTORY.with(|slot| {
        let directory = slot.get_or_init(|| TempDir::new().expect("a directory"));
        let path = directory.path().join("config");
        std::fs::write(&path, input).expect("a file");
        drop(KubeConfig::load(&path));
    });
}
