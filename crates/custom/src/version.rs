//! What is to be done with the objects of one version: one schema, compiled, and all that follows
//! from it.

use std::sync::OnceLock;

use schema::Type;
use serde_json::Value;
use validation::{FieldError, Path};

use crate::columns::PrinterColumn;
use crate::default::apply_defaults;
use crate::definition::Version;
use crate::embedded::{self, Malformed};
use crate::list_type;
use crate::prune::prune;
use crate::rules::{Rules, Verdict};
use crate::shape;
use crate::structural::Structural;
use crate::validate::{self, blocks_rules, nowhere};

/// The compiled schema of a version.
#[derive(Debug)]
pub struct Compiled {
    /// The group of its kind.
    pub group: String,
    /// The version.
    pub version: Version,
    /// Its kind.
    pub kind: String,
    /// The schema; one that keeps everything where the definition has none.
    pub schema: Structural,
    /// The columns of its table.
    pub columns: Vec<PrinterColumn>,
    preserves_unknown: bool,
    rules: Option<Rules>,
    table: OnceLock<Type>,
}

impl Compiled {
    /// Compiles a version. A schema that is none, which validation does not let through, keeps
    /// everything, lest objects be lost.
    pub fn new(
        group: &str,
        kind: &str,
        version: &Version,
        schema: Option<&Value>,
        preserves_unknown: bool,
    ) -> Self {
        let compiled = schema.and_then(|schema| Structural::compile(schema).ok());
        Self {
            group: group.to_owned(),
            version: version.clone(),
            kind: kind.to_owned(),
            schema: compiled.unwrap_or_else(Structural::anything),
            columns: PrinterColumn::of(&version.additional_printer_columns),
            preserves_unknown,
            rules: schema.and_then(|schema| Rules::compile(schema, true)),
            table: OnceLock::new(),
        }
    }

    /// As it stands in objects.
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version.name)
    }

    /// The table of its fields.
    pub fn table(&self) -> &Type {
        self.table.get_or_init(|| {
            let mut table = shape::table(&self.group, &self.version.name, &self.kind, &self.schema);
            table.preserve_unknown |= self.preserves_unknown;
            table
        })
    }

    /// Brings an object of a request into form: metadata as the API has it, nothing that is not
    /// specified, defaults. Returns the paths of unknown fields, sorted.
    ///
    /// # Errors
    /// What does not fit, in upstream's words.
    pub fn admit(&self, object: &mut Value) -> Result<Vec<String>, String> {
        let mut unknown = self.fit(object, Malformed::Refused)?;
        apply_defaults(object, &self.schema);
        unknown.sort();
        Ok(unknown)
    }

    /// Fills in defaults alone.
    pub fn apply_defaults(&self, object: &mut Value) {
        apply_defaults(object, &self.schema);
    }

    /// Brings what is stored into form; whatever cannot be read of its metadata is left out.
    pub fn restore(&self, object: &mut Value) {
        // Dropping never fails.
        drop(self.fit(object, Malformed::Dropped));
        apply_defaults(object, &self.schema);
    }

    /// Brings a converted object into form; upstream does not default these.
    ///
    /// # Errors
    /// What does not fit, in upstream's words.
    pub fn accept(&self, object: &mut Value) -> Result<(), String> {
        self.fit(object, Malformed::Refused).map(drop)
    }

    fn fit(&self, object: &mut Value, malformed: Malformed) -> Result<Vec<String>, String> {
        let mut unknown = embedded::coerce(object, Some(&self.schema), malformed)?;
        if !self.preserves_unknown {
            unknown.extend(prune(object, Some(&self.schema)));
        }
        Ok(unknown)
    }

    /// What is wrong with an object, metadata apart. `old` is what it was before; `is_status` when
    /// the status alone is written.
    pub fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        is_status: bool,
    ) -> Vec<FieldError> {
        let mut out = validate::validate(object, old, &self.schema);
        if let Some(scale) = &self.version.subresources.scale {
            out.extend(scale.validate(object, is_status));
        }
        out.extend(embedded::validate(object, &self.schema));
        let was_wrong = old.is_some_and(|old| !list_type::validate(old, &self.schema).is_empty());
        if !was_wrong {
            out.extend(list_type::validate(object, &self.schema));
        }
        out
    }

    /// What the rules of the schema say of an object. `others` is what else is wrong with it: rules
    /// are not asked about what they could not read.
    pub fn check_rules(
        &self,
        object: &Value,
        old: Option<&Value>,
        others: &[FieldError],
    ) -> Verdict {
        let Some(rules) = &self.rules else { return Verdict::default() };
        if blocks_rules(others) {
            let detail = "some validation rules were not checked because the object was invalid; \
                          correct the existing errors to complete validation";
            let finding = FieldError::invalid(&nowhere(), Value::Null, detail);
            return Verdict { findings: vec![finding], warnings: Vec::new() };
        }
        rules.check(object, old, &self.schema)
    }

    /// What is wrong with the kind of an object.
    pub fn validate_kind(&self, object: &Value) -> Vec<FieldError> {
        let mut out = Vec::new();
        for (field, wanted) in [("kind", self.kind.clone()), ("apiVersion", self.api_version())] {
            let given = object[field].as_str().unwrap_or_default();
            if given != wanted {
                let path = Path::default().member(field);
                out.push(FieldError::invalid(&path, given, format!("must be {wanted}")));
            }
        }
        out
    }
}
