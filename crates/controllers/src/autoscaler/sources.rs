//! What single metrics ask for, by their sources, and what is told when they say nothing.

use client::ListOptions;
use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, HPAScalingRules, MetricSpec, MetricTarget, ObjectMetricSource,
    PodsMetricSource,
};
use k8s_openapi::api::core::v1::Pod;
use meta::{ObjectKey, Quantity};
use serde_json::{Value, json};

use super::replicas::{self, Question, Sample, Target, Tolerance};
use super::{Pass, TOLERANCE, metrics};
use crate::scale_target::ScaleTarget;
use crate::selection;

/// Why a metric says nothing.
pub(super) struct Failure {
    pub(super) reason: &'static str,
    /// What is told of the metric.
    pub(super) why: String,
    /// What is told of all of them, if this one was the first to fail.
    pub(super) first: String,
}

/// What one metric asks for.
pub(super) struct Measured {
    pub(super) replicas: i32,
    pub(super) name: String,
    pub(super) status: Value,
}

impl Pass<'_> {
    pub(super) async fn ask(
        &self,
        key: &ObjectKey,
        target: &ScaleTarget,
        metric: &MetricSpec,
    ) -> Result<Measured, Failure> {
        if let Some(source) = &metric.resource {
            let measured =
                self.of_resource(key, target, (&source.name, None), &source.target).await;
            return measured.map_err(|why| Failure {
                reason: "FailedGetResourceMetric",
                first: format!("failed to get {} resource metric value: {why}", source.name),
                why,
            });
        }
        if let Some(source) = &metric.container_resource {
            let named = (source.name.as_str(), Some(source.container.as_str()));
            let measured = self.of_resource(key, target, named, &source.target).await;
            return measured.map_err(|why| Failure {
                reason: "FailedGetContainerResourceMetric",
                first: format!("failed to get {} container metric value: {why}", source.container),
                why,
            });
        }
        if let Some(source) = &metric.pods {
            return self.of_pods(key, target, source).await.map_err(|why| Failure {
                reason: "FailedGetPodsMetric",
                first: format!("failed to get pods metric value: {why}"),
                why,
            });
        }
        if let Some(source) = &metric.object {
            return self.of_object(key, target, source).await.map_err(|why| Failure {
                reason: "FailedGetObjectMetric",
                first: format!("failed to get object metric value: {why}"),
                why,
            });
        }
        if let Some(source) = &metric.external {
            let name = &source.metric.name;
            return self.of_external(key, target, source).await.map_err(|why| Failure {
                reason: "FailedGetExternalMetric",
                first: match source.target.average_value {
                    Some(_) => format!(
                        "failed to get {name} external metric value: failed to get {name} \
                         external metric: {why}"
                    ),
                    None => format!(
                        "failed to get {name} external metric value: failed to get external \
                         metric {name}: {why}"
                    ),
                },
                why,
            });
        }
        let why = format!("unknown metric source type {:?}", metric.type_);
        Err(Failure { reason: "InvalidMetricSourceType", first: why.clone(), why })
    }

    async fn of_pods(
        &self,
        key: &ObjectKey,
        target: &ScaleTarget,
        source: &PodsMetricSource,
    ) -> Result<Measured, String> {
        let client = &self.controller.client;
        let named = (source.metric.name.as_str(), source.metric.selector.as_ref());
        let samples = metrics::of_pods(client, &key.namespace, &target.selector, named).await;
        let samples = samples.map_err(|why| format!("unable to get metric {}: {why}", named.0))?;
        let average = milli(source.target.average_value.as_ref());
        let proposal = self.propose(key, target, ("", None), samples, Target::Average(average));
        let proposal = proposal.await?;
        Ok(Measured {
            replicas: proposal.replicas,
            name: format!("pods metric {}", named.0),
            status: json!({ "type": "Pods", "pods": { "metric": source.metric,
                "current": { "averageValue": printed(proposal.average) } } }),
        })
    }

    async fn of_object(
        &self,
        key: &ObjectKey,
        target: &ScaleTarget,
        source: &ObjectMetricSource,
    ) -> Result<Measured, String> {
        let client = &self.controller.client;
        let named = (source.metric.name.as_str(), source.metric.selector.as_ref());
        let object = &source.described_object;
        let version = object.api_version.as_deref().unwrap_or("v1");
        let value = async {
            let resource = self.controller.targets.group_resource(version, &object.kind).await;
            let resource = resource.map_err(|error| error.to_string())?;
            let described = (resource.as_str(), object.name.as_str());
            metrics::of_object(client, &key.namespace, described, named).await
        };
        // Upstream's words come in this order.
        let value = value.await.map_err(|why| {
            format!(
                "unable to get metric {}: {} on {} {}/{why}",
                named.0, object.kind, key.namespace, object.name
            )
        })?;
        let (replicas, current) = self.of_value(key, target, &source.target, value).await?;
        Ok(Measured {
            replicas,
            name: match source.target.average_value {
                // Upstream's words.
                Some(_) => format!("external metric {}({})", named.0, selection::go(named.1)),
                None => format!("{} metric {}", object.kind, named.0),
            },
            status: json!({ "type": "Object", "object": { "metric": source.metric,
                "describedObject": object, "current": current } }),
        })
    }

    async fn of_external(
        &self,
        key: &ObjectKey,
        target: &ScaleTarget,
        source: &ExternalMetricSource,
    ) -> Result<Measured, String> {
        let client = &self.controller.client;
        let named = (source.metric.name.as_str(), source.metric.selector.as_ref());
        let selector = selection::go(named.1);
        let value = metrics::external(client, &key.namespace, named).await;
        let value = value.map_err(|why| {
            format!("unable to get external metric {}/{}/{selector}: {why}", key.namespace, named.0)
        })?;
        let (replicas, current) = self.of_value(key, target, &source.target, value).await?;
        Ok(Measured {
            replicas,
            name: format!("external metric {}({selector})", named.0),
            status: json!({ "type": "External", "external": { "metric": source.metric,
                "current": current } }),
        })
    }

    async fn of_resource(
        &self,
        key: &ObjectKey,
        target: &ScaleTarget,
        named: (&str, Option<&str>),
        wanted: &MetricTarget,
    ) -> Result<Measured, String> {
        let (resource, container) = named;
        let client = &self.controller.client;
        let samples =
            metrics::resources(client, &key.namespace, &target.selector, resource, container).await;
        let failed = |why| format!("failed to get {resource} utilization: {why}");
        let samples = samples.map_err(failed)?;
        let measure = match wanted.average_utilization {
            Some(percent) => Target::Utilization(percent),
            None => Target::Average(milli(wanted.average_value.as_ref())),
        };
        let proposal = self.propose(key, target, named, samples, measure).await;
        let proposal = proposal.map_err(failed)?;
        let name = match (wanted.average_utilization, container) {
            (Some(_), None) => format!("{resource} resource utilization (percentage of request)"),
            (Some(_), Some(_)) => {
                format!("{resource} container resource utilization (percentage of request)")
            }
            (None, _) => format!("{resource} resource"),
        };
        let mut current = json!({ "averageValue": printed(proposal.average) });
        if let Some(percent) = proposal.utilization {
            current["averageUtilization"] = percent.into();
        }
        let status = match container {
            None => {
                json!({ "type": "Resource", "resource": { "name": resource, "current": current } })
            }
            Some(container) => json!({ "type": "ContainerResource", "containerResource": {
                "name": resource, "container": container, "current": current } }),
        };
        Ok(Measured { replicas: proposal.replicas, name, status })
    }

    async fn propose(
        &self,
        key: &ObjectKey,
        target: &ScaleTarget,
        (resource, container): (&str, Option<&str>),
        samples: std::collections::BTreeMap<String, Sample>,
        measure: Target,
    ) -> Result<replicas::Proposal, String> {
        let pods = self.pods(key, target).await?;
        let question = Question {
            pods: &pods,
            samples,
            resource,
            container,
            target: measure,
            current: target.replicas,
            tolerance: self.tolerance(),
            now: self.now,
        };
        question.answer()
    }

    /// Replicas for a value that is not of pods, and what is said of it.
    async fn of_value(
        &self,
        key: &ObjectKey,
        target: &ScaleTarget,
        wanted: &MetricTarget,
        value: i64,
    ) -> Result<(i32, Value), String> {
        let average = wanted.average_value.as_ref();
        let ready = match average {
            Some(_) => 0,
            // There are no pods.
            None if target.replicas == 0 => 0,
            None => {
                let pods = self.pods(key, target).await?;
                let ready = pods.iter().filter(|pod| api::pod::is_ready(pod)).count();
                i32::try_from(ready).unwrap_or(i32::MAX)
            }
        };
        let goal = milli(average.or(wanted.value.as_ref()));
        let counts = (target.replicas, ready);
        let replicas =
            replicas::for_value(value, goal, average.is_some(), counts, self.tolerance());
        let current = match average {
            Some(_) => {
                let each = value / i64::from(target.replicas.max(1));
                json!({ "averageValue": printed(each) })
            }
            None => json!({ "value": printed(value) }),
        };
        Ok((replicas, current))
    }

    async fn pods(&self, key: &ObjectKey, target: &ScaleTarget) -> Result<Vec<Pod>, String> {
        let options = ListOptions::labels(target.selector.as_str());
        let pods = self.controller.client.api::<Pod>(&key.namespace).list(&options).await;
        let pods = pods.map_err(|error| {
            format!("unable to get pods while calculating replica count: {error}")
        })?;
        if pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        Ok(pods)
    }

    fn tolerance(&self) -> Tolerance {
        let behavior = self.autoscaler.spec.behavior.as_ref();
        let of = |rules: Option<&HPAScalingRules>| {
            let text = rules.and_then(|rules| rules.tolerance.as_ref());
            let own = text.and_then(|text| text.0.parse::<Quantity>().ok());
            own.map_or(TOLERANCE, |own| own.as_f64())
        };
        Tolerance {
            down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
            up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        }
    }
}

type WireQuantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn milli(quantity: Option<&WireQuantity>) -> i64 {
    let quantity = quantity.and_then(|quantity| quantity.0.parse::<Quantity>().ok());
    quantity.map_or(0, |quantity| quantity.milli_value())
}

fn printed(milli: i64) -> String {
    Quantity::from_milli(milli).to_string()
}
