//! The objects that configure flow control, as far as it reads them.

use serde_json::Value;

/// Upstream's default of `nominalConcurrencyShares`.
const SHARES: u32 = 30;

/// A `FlowSchema`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSchema {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The priority level it leads to.
    pub level: String,
    /// Schemas of lower numbers are tried first.
    pub precedence: i64,
    pub(crate) distinguisher: Distinguisher,
    pub(crate) rules: Vec<Rule>,
}

/// What makes two requests of a schema belong to different flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distinguisher {
    None,
    ByUser,
    ByNamespace,
}

/// Subjects, and what they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) resources: Vec<ResourceRule>,
    pub(crate) paths: Vec<PathRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    User(String),
    Group(String),
    /// Of a service account: namespace and name, which may be `*`.
    ServiceAccount(String, String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourceRule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) cluster_scope: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathRule {
    pub(crate) verbs: Vec<String>,
    pub(crate) paths: Vec<String>,
}

impl FlowSchema {
    /// Reads one; what it does not say is empty, and matches nothing.
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let distinguisher = match spec["distinguisherMethod"]["type"].as_str() {
            Some("ByUser") => Distinguisher::ByUser,
            Some("ByNamespace") => Distinguisher::ByNamespace,
            _ => Distinguisher::None,
        };
        Self {
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            level: text(&spec["priorityLevelConfiguration"]["name"]),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            distinguisher,
            rules: items(&spec["rules"]).map(Rule::read).collect(),
        }
    }
}

impl Rule {
    fn read(value: &Value) -> Self {
        Self {
            subjects: items(&value["subjects"]).filter_map(Subject::read).collect(),
            resources: items(&value["resourceRules"]).map(ResourceRule::read).collect(),
            paths: items(&value["nonResourceRules"])
                .map(|rule| PathRule {
                    verbs: texts(&rule["verbs"]),
                    paths: texts(&rule["nonResourceURLs"]),
                })
                .collect(),
        }
    }
}

impl Subject {
    fn read(value: &Value) -> Option<Self> {
        Some(match value["kind"].as_str()? {
            "User" => Self::User(text(&value["user"]["name"])),
            "Group" => Self::Group(text(&value["group"]["name"])),
            "ServiceAccount" => {
                let account = &value["serviceAccount"];
                Self::ServiceAccount(text(&account["namespace"]), text(&account["name"]))
            }
            _ => return None,
        })
    }
}

impl ResourceRule {
    fn read(value: &Value) -> Self {
        Self {
            verbs: texts(&value["verbs"]),
            groups: texts(&value["apiGroups"]),
            resources: texts(&value["resources"]),
            namespaces: texts(&value["namespaces"]),
            cluster_scope: value["clusterScope"] == true,
        }
    }
}

/// A `PriorityLevelConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityLevel {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its part of the seats.
    pub(crate) shares: u32,
    /// Percent of its seats that others may have.
    pub(crate) lendable: u32,
    /// Percent of its seats that it may borrow; `None` for all there are.
    pub(crate) borrowing: Option<u32>,
    pub(crate) response: Response,
}

/// What happens to requests for which there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// There is always one.
    Exempt,
    Reject,
    Queue(Shape),
}

/// Queues of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How many there are.
    pub(crate) queues: usize,
    /// Among how many of them a flow chooses.
    pub(crate) hand: usize,
    /// How many requests wait in one at most.
    pub(crate) length: usize,
}

impl PriorityLevel {
    /// Reads one.
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let limited = &spec["limited"];
        let is_exempt = spec["type"] == "Exempt";
        let of = if is_exempt { &spec["exempt"] } else { limited };
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let queuing = &limited["limitResponse"]["queuing"];
        let count = |field: &str, default: usize| {
            let given = queuing[field].as_u64().and_then(|number| usize::try_from(number).ok());
            given.filter(|number| *number > 0).unwrap_or(default)
        };
        let response = match limited["limitResponse"]["type"].as_str() {
            _ if is_exempt => Response::Exempt,
            Some("Queue") => {
                // Upstream's defaults.
                let queues = count("queues", 64);
                let hand = count("handSize", 8).min(queues);
                Response::Queue(Shape { queues, hand, length: count("queueLengthLimit", 50) })
            }
            _ => Response::Reject,
        };
        let shares = number(&of["nominalConcurrencyShares"]);
        Self {
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            shares: shares.unwrap_or(if is_exempt { 0 } else { SHARES }),
            lendable: number(&of["lendablePercent"]).unwrap_or(0).min(100),
            borrowing: number(&limited["borrowingLimitPercent"]),
            response,
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).map(text).collect()
}
