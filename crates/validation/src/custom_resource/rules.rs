//! The expressions of `x-kubernetes-validations`: whether they compile, and what they may cost.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/cel/compilation.go`.

use cel::{Declaration, Environment, Program, STATIC_CRD_LIMIT, STATIC_LIMIT, Type};

use crate::node::{Findings, Node};
use crate::{FieldError, Path};

/// Most rules that are named when all of them together cost too much.
const MAX_NAMED: usize = 4;
/// The type whose internal form a rule is printed as.
const RULE: &str = "apiextensions/v1.ValidationRule";

/// What is known of a place in a schema.
#[derive(Clone)]
struct Place {
    is_root: bool,
    /// How many values there are for it in an object; `None` when that has no limit.
    count: Option<u64>,
    /// A list around it whose old items cannot be told apart.
    uncorrelated: Option<Path>,
}

/// What all rules together may cost.
#[derive(Default)]
struct Total {
    cost: u64,
    dearest: Vec<(u64, Path)>,
}

/// Compiles every rule of a schema that is structural.
pub(super) fn validate(root: &Node<'_>, out: &mut Findings) {
    let mut total = Total::default();
    let place = Place { is_root: true, count: Some(1), uncorrelated: None };
    walk(root, &place, &mut total, out);
    if total.cost <= STATIC_CRD_LIMIT {
        return;
    }
    for (_, path) in total.dearest {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire \
                      OpenAPIv3 schema";
        out.push(FieldError::forbidden(&path, detail));
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    out.push(FieldError::forbidden(&root.path, too_dear(what, total.cost, STATIC_CRD_LIMIT)));
}

fn walk(schema: &Node<'_>, place: &Place, total: &mut Total, out: &mut Findings) {
    if !schema.value.is_object() {
        return;
    }
    let within = |count: Option<u64>| place.count.zip(count).map(|(a, b)| a.saturating_mul(b));
    let limit = |field| schema.get(field).value.as_u64();
    let below = Place { is_root: false, ..place.clone() };
    let more = Place { count: within(limit("maxProperties")), ..below.clone() };
    walk(&schema.get("additionalProperties"), &more, total, out);
    for (_, property) in schema.get("properties").entries() {
        walk(&property, &below, total, out);
    }
    let is_map = schema.get("x-kubernetes-list-type").text() == "map";
    let uncorrelated = match &place.uncorrelated {
        None if !is_map => Some(schema.path.clone()),
        other => other.clone(),
    };
    let item = Place { count: within(limit("maxItems")), uncorrelated, ..below };
    walk(&schema.get("items"), &item, total, out);
    rules(schema, place, total, out);
}

fn rules(schema: &Node<'_>, place: &Place, total: &mut Total, out: &mut Findings) {
    let rules = schema.get("x-kubernetes-validations");
    if rules.len() == 0 {
        return;
    }
    let Some(declaration) = Declaration::from_schema(schema.value, place.is_root) else { return };
    for rule in rules.items() {
        Rule { rule, declaration: &declaration, place }.compile(total, out);
    }
}

struct Rule<'a> {
    rule: Node<'a>,
    declaration: &'a Declaration,
    place: &'a Place,
}

impl Rule<'_> {
    fn compile(&self, total: &mut Total, out: &mut Findings) {
        let text = self.rule.get("rule");
        if text.text().trim().is_empty() {
            return;
        }
        let path = self.rule.path.child("rule");
        let environment = self.environment();
        let program = match environment.compile(text.text()) {
            Ok(program) => program,
            Err(why) => {
                return out.push(self.invalid("rule", format!("compilation failed: {why}")));
            }
        };
        self.charge(&program, "estimated rule cost", &path, total, out);
        if !matches!(program.result(), Type::Bool) {
            out.push(self.invalid("rule", "cel expression must evaluate to a bool".to_owned()));
        }
        self.message(&environment, total, out);
        let optional = self.rule.get("optionalOldSelf");
        if program.uses("oldSelf") {
            if let Some(list) = &self.place.uncorrelated {
                out.push(text.invalid(format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within \
                     {list}"
                )));
            }
        } else if optional.is_set() {
            out.push(optional.invalid("may not be set if oldSelf is not used in rule"));
        }
    }

    fn environment(&self) -> Environment {
        let environment = Environment::new().with("self", self.declaration.clone());
        if self.rule.get("optionalOldSelf").is_true() {
            let ty = Type::optional(self.declaration.ty());
            environment.with("oldSelf", Declaration::of(ty))
        } else {
            environment.with("oldSelf", self.declaration.clone())
        }
    }

    fn message(&self, environment: &Environment, total: &mut Total, out: &mut Findings) {
        let text = self.rule.get("messageExpression");
        if text.text().trim().is_empty() {
            return;
        }
        let fail = |detail| self.invalid("messageExpression", detail);
        match environment.compile(text.text()) {
            Err(why) => out.push(fail(format!("messageExpression compilation failed: {why}"))),
            Ok(program) if !matches!(program.result(), Type::String) => {
                out.push(fail("messageExpression must evaluate to a string".to_owned()));
            }
            Ok(program) => {
                self.charge(&program, "estimated messageExpression cost", &text.path, total, out);
            }
        }
    }

    /// Adds what a program may cost for all values that there may be.
    fn charge(
        &self,
        program: &Program,
        what: &str,
        path: &Path,
        total: &mut Total,
        out: &mut Findings,
    ) {
        let count = self.place.count.unwrap_or_else(|| self.declaration.most_in_a_request());
        let cost = program.estimate().max.saturating_mul(count);
        total.cost = total.cost.saturating_add(cost);
        if cost > STATIC_LIMIT {
            out.push(FieldError::forbidden(path, too_dear(what, cost, STATIC_LIMIT)));
        }
        if cost > 0 {
            total.dearest.push((cost, path.clone()));
            total.dearest.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            total.dearest.truncate(MAX_NAMED);
        }
    }

    /// The whole rule is at fault, in upstream's internal form.
    fn invalid(&self, field: &'static str, detail: String) -> FieldError {
        let path = self.rule.path.child(field);
        FieldError::invalid(&path, self.rule.value.clone(), detail).shown_as(RULE)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a factor that is printed")]
fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength \
                  where arrays, maps, and strings are declared)";
    if factor > 100.0 {
        return format!("{what} exceeds budget by factor of more than 100x {advice}");
    }
    // Near the limit more digits are shown.
    let factor = if factor < 1.5 { format!("{factor:.6}") } else { format!("{factor:.1}") };
    format!("{what} exceeds budget by factor of {factor}x {advice}")
}
