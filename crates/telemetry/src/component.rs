//! What every part of the cluster tells of itself: its release, its feature gates, its process.
//!
//! Upstream: `component-base/metrics/prometheus`.

use prometheus::core::Collector;
use prometheus::{Error, IntGaugeVec, Opts, Registry};

use crate::process::Process;

/// The release of Kubernetes that is spoken.
pub const VERSION: &str = "v1.36.0";
/// Its parts; the release before is the oldest that this one stands in for.
const RELEASE: [&str; 3] = ["1.36", "1.36", "1.35"];

/// The machine, as Go names it.
pub fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// A feature gate: its name, its stage as metrics call it, and whether it is open.
pub type Gate = (&'static str, &'static str, bool);

/// Registers what a component tells of itself. What is registered already, by another component of
/// the process, stays as it is.
///
/// # Errors
/// When something else has one of the names.
pub fn describe(registry: &Registry, gates: impl Iterator<Item = Gate>) -> Result<(), Error> {
    register(registry, Process::new()?)?;
    let labels = [
        "major",
        "minor",
        "git_version",
        "git_commit",
        "git_tree_state",
        "build_date",
        "go_version",
        "compiler",
        "platform",
    ];
    let build = gauges(
        "kubernetes_build_info",
        "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git \
         commit, git tree state, build date, Go version, and compiler from which Kubernetes was \
         built, and platform on which it is running.",
        &labels,
    )?;
    let (major, minor) = RELEASE[0].split_once('.').unwrap_or_default();
    let platform = platform();
    let date = "1970-01-01T00:00:00Z";
    build
        .with_label_values(&[major, minor, VERSION, "", "clean", date, "none", "rustc", &platform])
        .set(1);
    register(registry, build)?;
    let versions = gauges(
        "version_info",
        "[ALPHA] Provides the compatibility version info of the component. The component label is \
         the name of the component, usually kube, but is relevant for aggregated-apiservers.",
        &["component", "binary", "emulation", "min_compat"],
    )?;
    let [binary, emulation, oldest] = RELEASE;
    versions.with_label_values(&["kube", binary, emulation, oldest]).set(1);
    register(registry, versions)?;
    let features = gauges(
        "kubernetes_feature_enabled",
        "[BETA] This metric records the data about the stage and enablement of a k8s feature.",
        &["name", "stage"],
    )?;
    for (name, stage, is_open) in gates {
        features.with_label_values(&[name, stage]).set(i64::from(is_open));
    }
    register(registry, features)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn register(registry: &Registry, metric: impl Collector + 'static) -> Result<(), Error> {
    match registry.register(Box::new(metric)) {
        Err(Error::AlreadyReg) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_describes_itself_once() {
        let registry = Registry::new();
        let gates = || [("A", "ALPHA", false), ("B", "", true)].into_iter();
        describe(&registry, gates()).unwrap();
        describe(&registry, gates()).unwrap();
        let shown = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "kubernetes_feature_enabled{name=\"A\",stage=\"ALPHA\"} 0".to_owned(),
            "kubernetes_feature_enabled{name=\"B\",stage=\"\"} 1".to_owned(),
            "version_info{binary=\"1.36\",component=\"kube\",emulation=\"1.36\",min_compat=\"1.35\"} 1"
                .to_owned(),
            format!(
                "kubernetes_build_info{{build_date=\"1970-01-01T00:00:00Z\",compiler=\"rustc\",\
                 git_commit=\"\",git_tree_state=\"clean\",git_version=\"{VERSION}\",\
                 go_version=\"none\",major=\"1\",minor=\"36\",platform=\"{}\"}} 1",
                platform()
            ),
            "# TYPE process_cpu_seconds_total counter".to_owned(),
            "# TYPE process_resident_memory_bytes gauge".to_owned(),
        ] {
            assert!(shown.contains(&line), "{line}: {shown}");
        }
    }
}
