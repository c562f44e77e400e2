//! `apps`, `batch`, `autoscaling` and `policy`.

use jiff::Timestamp;
use meta::time;
use serde_json::{Value, json};

use super::cells::{
    age, bool_text, containers, count, human_duration, int, labels, list, name, scalar, selector,
    since, text, text_or,
};
use super::core::ago_or_none;

const CONTAINERS: &str = "/spec/template/spec/containers";

pub(super) fn row(resource: &str, o: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let ints = |at: &[&str]| at.iter().map(|at| json!(int(o, at))).collect::<Vec<_>>();
    let mut row = vec![name(o)];
    match resource {
        "deployments" => {
            let (ready, desired) = (int(o, "/status/readyReplicas"), int(o, "/spec/replicas"));
            row.push(json!(format!("{ready}/{desired}")));
            row.extend(ints(&["/status/updatedReplicas", "/status/availableReplicas"]));
            finish(&mut row, o, now);
        }
        "replicasets" => {
            row.extend(ints(&["/spec/replicas", "/status/replicas", "/status/readyReplicas"]));
            finish(&mut row, o, now);
        }
        "statefulsets" => {
            let (ready, desired) = (int(o, "/status/readyReplicas"), int(o, "/spec/replicas"));
            row.extend([json!(format!("{ready}/{desired}")), age(o, now)]);
            row.extend(containers(o, CONTAINERS));
        }
        "daemonsets" => {
            let status = [
                "/status/desiredNumberScheduled",
                "/status/currentNumberScheduled",
                "/status/numberReady",
                "/status/updatedNumberScheduled",
                "/status/numberAvailable",
            ];
            row.extend(ints(&status));
            row.push(json!(labels(o, "/spec/template/spec/nodeSelector")));
            finish(&mut row, o, now);
        }
        "controllerrevisions" => {
            let owner =
                list(o, "/metadata/ownerReferences").iter().find(|r| r["controller"] == true);
            row.push(json!(owner.map_or("<none>".to_owned(), controller)));
            row.extend([json!(int(o, "/revision")), age(o, now)]);
        }
        "jobs" => job(&mut row, o, now),
        "cronjobs" => cron_job(&mut row, o, now),
        "horizontalpodautoscalers" => autoscaler(&mut row, o, now),
        "poddisruptionbudgets" => {
            row.push(json!(scalar(o, "/spec/minAvailable", "N/A")));
            row.push(json!(scalar(o, "/spec/maxUnavailable", "N/A")));
            row.extend([json!(int(o, "/status/disruptionsAllowed")), age(o, now)]);
        }
        _ => return None,
    }
    Some(row)
}

fn finish(row: &mut Vec<Value>, o: &Value, now: Timestamp) {
    row.push(age(o, now));
    row.extend(containers(o, CONTAINERS));
    row.push(json!(selector(o, "/spec/selector")));
}

fn controller(owner: &Value) -> String {
    let kind = text(owner, "/kind").to_lowercase();
    let group = text(owner, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    let dot = if group.is_empty() { "" } else { "." };
    format!("{kind}{dot}{group}/{}", text(owner, "/name"))
}

fn job(row: &mut Vec<Value>, job: &Value, now: Timestamp) {
    let has = |wanted: &str| {
        let conditions = list(job, "/status/conditions").iter();
        conditions.into_iter().any(|c| c["type"] == wanted && c["status"] == "True")
    };
    let status = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !text(job, "/metadata/deletionTimestamp").is_empty() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let done = int(job, "/status/succeeded");
    let completions = match (job.pointer("/spec/completions"), int(job, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    };
    let (start, end) = (text(job, "/status/startTime"), text(job, "/status/completionTime"));
    let duration = match (time::parse(start), time::parse(end)) {
        (Ok(start), Ok(end)) => human_duration(end.as_second() - start.as_second()),
        (Ok(_), Err(_)) => since(start, now),
        _ => String::new(),
    };
    row.extend([json!(status), json!(completions), json!(duration)]);
    finish(row, job, now);
}

fn cron_job(row: &mut Vec<Value>, job: &Value, now: Timestamp) {
    row.extend([
        json!(text(job, "/spec/schedule")),
        json!(text_or(job, "/spec/timeZone", "<none>")),
        json!(bool_text(job, "/spec/suspend")),
        json!(count(job, "/status/active")),
        ago_or_none(job, "/status/lastScheduleTime", now),
        age(job, now),
    ]);
    row.extend(containers(job, "/spec/jobTemplate/spec/template/spec/containers"));
    row.push(json!(selector(job, "/spec/jobTemplate/spec/selector")));
}

fn autoscaler(row: &mut Vec<Value>, o: &Value, now: Timestamp) {
    let reference = format!(
        "{}/{}",
        text(o, "/spec/scaleTargetRef/kind"),
        text(o, "/spec/scaleTargetRef/name")
    );
    row.extend([
        json!(reference),
        json!(targets(o)),
        json!(scalar(o, "/spec/minReplicas", "<unset>")),
        json!(int(o, "/spec/maxReplicas")),
        json!(int(o, "/status/currentReplicas")),
        age(o, now),
    ]);
}

/// Current and wanted value of each metric; two are shown, the rest counted.
fn targets(autoscaler: &Value) -> String {
    const SHOWN: usize = 2;
    if let Some(wanted) = autoscaler.pointer("/spec/targetCPUUtilizationPercentage") {
        let now = autoscaler.pointer("/status/currentCPUUtilizationPercentage");
        let now = now.map_or("<unknown>".to_owned(), |now| format!("{now}%"));
        return format!("cpu: {now}/{wanted}%");
    }
    let metrics = list(autoscaler, "/spec/metrics");
    let current = list(autoscaler, "/status/currentMetrics");
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> = metrics
        .iter()
        .take(SHOWN)
        .enumerate()
        .map(|(at, metric)| target(metric, current.get(at)))
        .collect();
    match metrics.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} + {more} more...", shown.join(", ")),
    }
}

fn target(metric: &Value, current: Option<&Value>) -> String {
    let source = match text(metric, "/type") {
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (metric, null) = (&metric[source], Value::Null);
    let current = current.and_then(|status| status.get(source)?.get("current")).unwrap_or(&null);
    let prefix = match source {
        "resource" | "containerResource" => format!("{}: ", text(metric, "/name")),
        _ => String::new(),
    };
    let percent = metric.pointer("/target/averageUtilization");
    if let (Some(wanted), "resource" | "containerResource") = (percent, source) {
        let now = current.get("averageUtilization");
        let now = now.map_or("<unknown>".to_owned(), |now| format!("{now}%"));
        return format!("{prefix}{now}/{wanted}%");
    }
    let average = text(metric, "/target/averageValue");
    if !average.is_empty() {
        let now = text_or(current, "/averageValue", "<unknown>");
        let suffix = if matches!(source, "object" | "external") { " (avg)" } else { "" };
        return format!("{prefix}{now}/{average}{suffix}");
    }
    let now = text_or(current, "/value", "<unknown>");
    format!("{prefix}{now}/{}", text_or(metric, "/target/value", "<auto>"))
}
