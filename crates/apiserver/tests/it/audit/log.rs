//! The log as a file: rotation, what does not fit, and policies that are none.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use apiserver::{ApiServer, StartError};
use audit::{Format, Mode};
use clock::SystemClock;
use http::Method;
use serde_json::{Value, json};
use stdx::shutdown::Shutdown;
use store::{LogStore, Options};

use super::{Recorded, all, log_path, of, sinks};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn the_file_is_the_owners_and_is_put_aside_when_it_is_full() {
    let recorded = Recorded::start_with(&all("Metadata"), |sinks| {
        sinks.log.as_mut().unwrap().max_bytes = 20_000;
    })
    .await;
    for _ in 0..100 {
        recorded.server.admin(Method::GET, MAPS, &Value::Null).await;
    }
    let mode = std::fs::metadata(log_path(&recorded.directory)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = std::fs::read_dir(recorded.directory.path()).unwrap();
    let mut all = Vec::new();
    let mut old = 0;
    for file in files {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("audit") {
            old += usize::from(name.starts_with("audit-20"));
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.len() <= 20_000 && text.ends_with('\n'));
            all.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    assert!(old >= 2, "{old}");
    assert_eq!(all.iter().filter(|event| of(MAPS)(event)).count(), 200, "none is lost");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_requests_only_where_it_is_to() {
    for (mode, code) in [(Mode::Blocking, 200), (Mode::BlockingStrict, 500)] {
        let rules = "rules: [{level: None, userGroups: [\"system:masters\"], verbs: [create, update, \
                     patch]}, {level: Metadata, verbs: [list], users: [admin]}]";
        let recorded = Recorded::start_with(rules, |sinks| {
            let log = sinks.log.as_mut().unwrap();
            log.mode = mode;
            // No line fits.
            log.max_bytes = 10;
        })
        .await;
        let (found, _) = recorded.server.admin(Method::GET, MAPS, &Value::Null).await;
        assert_eq!(found.as_u16(), code);
        let (_, metrics) = crate::metrics::scrape(&recorded.server).await;
        let lost = if code == 500 { 1 } else { 2 };
        assert!(
            metrics.contains(&format!("apiserver_audit_error_total{{plugin=\"log\"}} {lost}")),
            "{metrics}"
        );
        let rejected = usize::from(code == 500);
        assert!(metrics.contains(&format!("apiserver_audit_requests_rejected_total {rejected}")));
        assert!(metrics.contains("apiserver_audit_level_total{level=\"Metadata\"} 1"));
    }
}

#[tokio::test]
async fn the_older_format_and_batches_write_the_same_events() {
    let recorded = Recorded::start_with(&all("Metadata"), |sinks| {
        let log = sinks.log.as_mut().unwrap();
        (log.format, log.mode) = (Format::Legacy, Mode::Batch);
    })
    .await;
    recorded.server.admin(Method::GET, MAPS, &Value::Null).await;
    for _ in 0..400 {
        if recorded.text().lines().filter(|line| line.contains(MAPS)).count() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let text = recorded.text();
    let line = text.lines().rfind(|line| line.contains(MAPS)).unwrap();
    assert!(line.contains(" AUDIT: id=") && line.ends_with("response=\"200\""), "{line}");
}

#[tokio::test]
async fn large_events_lose_their_objects() {
    let recorded = Recorded::start_with(&all("RequestResponse"), |sinks| {
        let truncate = &mut sinks.log.as_mut().unwrap().truncate;
        (truncate.enabled, truncate.max_event_size) = (true, 2000);
    })
    .await;
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(3000)}});
    recorded.server.create(MAPS, &map).await;
    let event = &recorded.wait(2, of(MAPS)).await[1];
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    assert!(event["requestObject"].is_null() && event["responseObject"].is_null());
}

#[tokio::test]
async fn a_server_with_a_wrong_policy_does_not_start() {
    let cases = [
        ("rules: []", "loaded illegal policy with 0 rules: from file "),
        ("rules: [{level: All}]", "rules[0].level: Unsupported value: \"All\""),
        ("rules: [{level: None, nonResourceURLs: [x]}]", "must begin with a '/' character"),
        ("rules: 7", "failed decoding: json: cannot unmarshal number into Go struct field"),
    ];
    for (rules, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let (mut config, deps) = crate::fixture::parts(Arc::new(
            LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap(),
        ));
        config.audit = sinks(&directory, rules);
        let Err(error) = ApiServer::start(config, deps, Shutdown::new()).await else {
            panic!("it starts with {rules}");
        };
        assert!(matches!(error, StartError::Audit(_)));
        let text = telemetry::Chain(&error).to_string();
        assert!(text.starts_with("audit cannot begin: loading audit policy file: "), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("policy.yaml"), "{text}");
    }
}

/// The variable with the directory for a process to log to.
const DIRECTORY: &str = "IRONCLAD_TEST_AUDIT_DIRECTORY";

/// Asks as fast as it can, in a process that is to be killed. As one of the tests it checks that it
/// is not told to.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        assert!(std::env::var(DIRECTORY).is_err());
        return;
    };
    let recorded = Recorded::start_with(&all("RequestResponse"), |sinks| {
        sinks.log.as_mut().unwrap().path = std::path::Path::new(&directory).join("audit.log");
    })
    .await;
    let ask = || async {
        loop {
            recorded.server.admin(Method::GET, MAPS, &Value::Null).await;
        }
    };
    tokio::join!(ask(), ask(), ask(), ask());
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_whole_lines() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = testkit::command(std::env::current_exe().unwrap());
    command.args(["--exact", "audit::log::writes_until_it_is_killed"]);
    command.env(DIRECTORY, directory.path()).stdout(std::process::Stdio::null());
    let mut process = command.spawn().unwrap();
    let read = || std::fs::read_to_string(log_path(&directory)).unwrap_or_default();
    for _ in 0..1000 {
        if read().len() > 200_000 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let text = read();
    let whole = &text[..=text.rfind('\n').unwrap()];
    assert!(whole.len() > 100_000, "{}", whole.len());
    for line in whole.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}
