//! Completion indexes: the pods that carry them, and the text form of a set of them.

use std::collections::BTreeSet;

use api::annotations::JOB_COMPLETION_INDEX;
use api::finalizers::JOB_TRACKING;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::plan::New;
use super::policies::{FAILURES, Failures, IGNORED};
use crate::pod_control::{Owner, from_template};
use crate::pod_view::PodView;

/// Name of the variable in which a container finds its index.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The index of a pod.
pub(super) fn of(pod: &PodView) -> Option<i32> {
    pod.annotations.get(JOB_COMPLETION_INDEX)?.parse().ok()
}

/// Reads `0-3,5`.
pub(super) fn parse(text: &str) -> BTreeSet<i32> {
    let ranges = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<i32>().ok()?..=last.trim().parse::<i32>().ok()?)
    });
    ranges.flatten().collect()
}

/// Prints `0-3,5`; two neighbours are printed as `0,1`, as upstream does.
pub(super) fn print(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let text = |(first, last): &(i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// A pod of the Job, with an index and the failures of it, or without.
pub(super) fn pod(job: &Job, owner: &Owner, new: New) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = from_template(owner, &template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == JOB_TRACKING) {
        finalizers.push(JOB_TRACKING.to_owned());
    }
    let Some(index) = new.index else { return pod };
    let name = &owner.key.name;
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    for list in [&mut pod.metadata.annotations, &mut pod.metadata.labels] {
        list.get_or_insert_default().insert(JOB_COMPLETION_INDEX.to_owned(), index.to_string());
    }
    if let Some(Failures { counted, ignored }) = new.failures {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }
    if let Some(spec) = &mut pod.spec {
        spec.hostname.get_or_insert_with(|| format!("{name}-{index}"));
        let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        containers.for_each(add_variable);
    }
    pod
}

fn add_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.annotations['{JOB_COMPLETION_INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}
