//! One event: what was asked, by whom, and what came of it. `audit.k8s.io/v1 Event`.

use std::collections::BTreeMap;
use std::sync::Arc;

use authn::UserInfo;
use bytes::Bytes;
use jiff::Timestamp;
use meta::{Status, StatusDetails};
use serde::{Deserialize, Serialize};

/// How much of a request is recorded; each level has what is in those before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, and how it ended.
    Metadata,
    /// The object that was sent.
    Request,
    /// The object that was answered.
    RequestResponse,
}

impl Level {
    pub(crate) const ALL: [Self; 4] =
        [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The request is about to be worked on.
    RequestReceived,
    /// The answer of a request that may last has begun.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The server panicked over it.
    Panic,
}

impl Stage {
    pub(crate) const ALL: [Self; 4] =
        [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages(u8);

impl Stages {
    /// Whether a stage is in it.
    pub fn contains(self, stage: Stage) -> bool {
        self.0 & Self::bit(stage) != 0
    }

    /// The stages of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn bit(stage: Stage) -> u8 {
        match stage {
            Stage::RequestReceived => 1,
            Stage::ResponseStarted => 2,
            Stage::ResponseComplete => 4,
            Stage::Panic => 8,
        }
    }
}

impl FromIterator<Stage> for Stages {
    fn from_iter<I: IntoIterator<Item = Stage>>(stages: I) -> Self {
        Self(stages.into_iter().fold(0, |bits, stage| bits | Self::bit(stage)))
    }
}

/// What is known when a request comes, and the same in all of its events.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The id that the client chose, or that was made for it.
    pub audit_id: String,
    /// Path and query, as the client sent them.
    pub request_uri: String,
    /// `get`, `list`, …, or the method in lower case.
    pub verb: String,
    /// Who asked. Nobody when authentication failed.
    pub user: UserInfo,
    /// From where, see [`crate::source_ips`].
    pub source_ips: Vec<std::net::IpAddr>,
    /// What program, as it says itself.
    pub user_agent: String,
    /// When.
    pub received: Timestamp,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Plural resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Uid, when the object that was sent has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// Version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Resource version, when the object that was sent has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Subresource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// How a request ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResponseStatus {
    /// Always empty, and always printed.
    pub(crate) metadata: BTreeMap<String, String>,
    /// `Success` or `Failure`, when the answer was a `Status`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP code.
    pub code: u16,
}

impl ResponseStatus {
    /// An answer that is no `Status`.
    pub fn of_code(code: u16) -> Self {
        Self { code, ..Self::default() }
    }

    /// An answer that is one. Its metadata has no bound, and is left out.
    pub fn of(status: &Status, code: u16) -> Self {
        Self {
            metadata: BTreeMap::new(),
            status: status.status.clone(),
            message: status.message.clone(),
            reason: status.reason.clone(),
            details: status.details.clone(),
            code,
        }
    }
}

/// The encoding of an object that was sent or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Kubernetes' protobuf.
    Protobuf,
}

/// An object that was sent or answered: shared bytes, made JSON when the event is printed.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What the bytes are.
    pub media: Media,
    /// The bytes, in pieces.
    pub chunks: Vec<Bytes>,
}

impl Recorded {
    /// JSON in one piece.
    pub fn json(bytes: Bytes) -> Self {
        Self { media: Media::Json, chunks: vec![bytes] }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The level that the policy chose.
    pub level: Level,
    /// When in the course of the request.
    pub stage: Stage,
    /// When.
    pub stage_timestamp: Timestamp,
    /// What came with the request.
    pub facts: Arc<Facts>,
    /// As whom the request was made.
    pub impersonated_user: Option<UserInfo>,
    /// About what.
    pub object: Option<ObjectReference>,
    /// How it ended.
    pub response_status: Option<ResponseStatus>,
    /// What was sent.
    pub request_object: Option<Recorded>,
    /// What was answered.
    pub response_object: Option<Recorded>,
    /// Whether managed fields are left out of both.
    pub omits_managed_fields: bool,
    /// What others had to say.
    pub annotations: BTreeMap<String, String>,
}

impl Event {
    /// The event with all that is in it, of which nothing is left here.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            facts: self.facts.clone(),
            impersonated_user: self.impersonated_user.take(),
            object: self.object.take(),
            response_status: self.response_status.take(),
            request_object: self.request_object.take(),
            response_object: self.response_object.take(),
            annotations: std::mem::take(&mut self.annotations),
            ..*self
        }
    }

    /// About how much memory is kept for it.
    pub(crate) fn weight(&self) -> usize {
        /// The fixed part of an event, its strings and its place in a queue.
        const SMALL_PARTS: usize = 2048;
        SMALL_PARTS + self.object_bytes()
    }

    /// Bytes of the objects in it.
    pub(crate) fn object_bytes(&self) -> usize {
        let body = |object: &Option<Recorded>| object.as_ref().map_or(0, Recorded::len);
        body(&self.request_object) + body(&self.response_object)
    }
}
