//! What a write is told by its query: `fieldManager`, `dryRun`, `fieldValidation`, `force`.
//!
//! Everything that is wrong is told at once.
//!
//! Upstream: `apimachinery/pkg/apis/meta/v1/validation`.

use meta::{Cause, Status};
use schema::FieldValidation;

use crate::context::{self, RequestContext, options_kind};
use crate::decode;
use crate::errors;

/// The options of a create, update or patch.
pub(crate) struct WriteOptions {
    pub(crate) is_dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// Who owns what is written.
    pub(crate) manager: String,
    /// Whether an applied configuration takes over what others own.
    pub(crate) is_forced: bool,
}

impl WriteOptions {
    /// The options of a create or update.
    pub(crate) fn read(ctx: &RequestContext) -> Result<Self, Status> {
        Self::with(ctx, Vec::new())
    }

    /// The options of a patch; only one that is applied can be forced, and only it needs a manager.
    pub(crate) fn of_patch(ctx: &RequestContext, is_applied: bool) -> Result<Self, Status> {
        let finding = |reason: &str, field: &str, message: &str| Cause {
            reason: reason.to_owned(),
            message: message.to_owned(),
            field: field.to_owned(),
        };
        let mut findings = Vec::new();
        if is_applied && ctx.query.non_empty("fieldManager").is_none() {
            let message = "Required value: is required for apply patch";
            findings.push(finding("FieldValueRequired", "fieldManager", message));
        }
        if !is_applied && ctx.query.get("force").is_some() {
            let message = "Forbidden: may not be specified for non-apply patch";
            findings.push(finding("FieldValueForbidden", "force", message));
        }
        Self::with(ctx, findings)
    }

    fn with(ctx: &RequestContext, mut findings: Vec<Cause>) -> Result<Self, Status> {
        let verb = ctx.info.verb.as_str();
        let field_manager = ctx.query.get("fieldManager").unwrap_or_default();
        findings.extend(check_manager(field_manager));
        let is_dry_run = context::dry_run(ctx.query.all("dryRun"));
        let validation = decode::read_field_validation(&ctx.query);
        match (is_dry_run, validation) {
            (Ok(is_dry_run), Ok(validation)) if findings.is_empty() => Ok(Self {
                is_dry_run,
                validation,
                manager: manager(ctx),
                is_forced: ctx.query.flag("force"),
            }),
            (is_dry_run, validation) => {
                findings.extend(is_dry_run.err());
                findings.extend(validation.err());
                Err(errors::invalid("meta.k8s.io", options_kind(verb), "", findings))
            }
        }
    }
}

/// The manager of a request: the one it names, or the program that sends it.
fn manager(ctx: &RequestContext) -> String {
    let agent = ctx.headers.get(http::header::USER_AGENT);
    let agent = agent.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let field_manager = ctx.query.get("fieldManager").unwrap_or_default();
    apply::manager_name(field_manager, agent.as_deref().unwrap_or_default())
}

fn check_manager(name: &str) -> Vec<Cause> {
    let finding = |reason: &str, message: String| Cause {
        reason: reason.to_owned(),
        message,
        field: "fieldManager".to_owned(),
    };
    let mut findings = Vec::new();
    if name.len() > apply::NAME_MAX {
        let message = format!("Too long: may not be more than {} bytes", apply::NAME_MAX);
        findings.push(finding("FieldValueTooLong", message));
    }
    for (at, c) in name.char_indices().filter(|(_, c)| !apply::is_printable(*c)) {
        let code = u32::from(c);
        findings.push(finding(
            "FieldValueInvalid",
            format!("Invalid value: {name:?}: invalid character U+{code:04X} (at position {at})"),
        ));
    }
    findings
}
