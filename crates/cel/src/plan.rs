//! From tree to what is run: names become places, functions what runs them, literals values.

use std::sync::Arc;

use ::regex::Regex;

use crate::charge::Charge;
use crate::check::{Checked, Reference};
use crate::environment::Environment;
use crate::functions::{self, Run};
use crate::library;
use crate::syntax::ast::{Call, Expr, ExprKind, Fold, FoldKind, Literal, Select, operator};
use crate::value::{Text, Value};

/// One step.
pub(crate) enum Node {
    Value(Value<'static>),
    /// A variable of the environment.
    Variable(usize),
    /// `variables.name`.
    Composed(usize),
    /// A variable of a loop, counted from the outermost.
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Arc<str>,
    },
    Test {
        operand: Box<Node>,
        field: Arc<str>,
    },
    OptionalSelect {
        operand: Box<Node>,
        field: Arc<str>,
    },
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Conditional(Box<[Node; 3]>),
    Equals(Box<[Node; 2]>, bool),
    Call(Box<Called>),
    /// A match against a literal expression.
    Matches {
        text: Box<Node>,
        regex: Arc<Regex>,
        cost: u64,
    },
    List(Box<[(Node, bool)]>),
    Map(Box<[(Node, Node, bool)]>),
    Object {
        ty: Arc<str>,
        fields: Box<[(Arc<str>, Node, bool)]>,
    },
    Fold(Box<Folded>),
    Bind {
        value: Box<Node>,
        body: Box<Node>,
    },
    /// What the checker let no program have.
    Missing,
}

pub(crate) struct Called {
    pub(crate) run: Run,
    pub(crate) args: Box<[Node]>,
    pub(crate) charge: Charge,
    pub(crate) name: Arc<str>,
}

pub(crate) struct Folded {
    pub(crate) kind: FoldKind,
    pub(crate) range: Node,
    pub(crate) has_two: bool,
    pub(crate) filter: Option<Node>,
    pub(crate) step: Node,
}

pub(crate) fn plan(environment: &Environment, expr: &Expr, checked: &Checked) -> Node {
    Planner { environment, checked, locals: Vec::new() }.node(expr)
}

struct Planner<'e> {
    environment: &'e Environment,
    checked: &'e Checked,
    locals: Vec<String>,
}

impl Planner<'_> {
    fn reference(&self, expr: &Expr) -> &Reference {
        usize::try_from(expr.id)
            .ok()
            .and_then(|id| self.checked.references.get(id))
            .unwrap_or(&Reference::None)
    }

    fn nodes(&mut self, exprs: &[Expr]) -> Vec<Node> {
        exprs.iter().map(|expr| self.node(expr)).collect()
    }

    fn node(&mut self, expr: &Expr) -> Node {
        match self.reference(expr) {
            Reference::Variable(at) => return Node::Variable(*at),
            Reference::Type(name) => return Node::Value(Value::Type(name.as_str().into())),
            _ => {}
        }
        match &expr.kind {
            ExprKind::Literal(literal) => Node::Value(value(literal)),
            ExprKind::Name { name, .. } => {
                self.locals.iter().rposition(|l| l == name).map_or(Node::Missing, Node::Local)
            }
            ExprKind::Select(select) => self.select(select),
            ExprKind::Call(call) => self.call(expr, call),
            ExprKind::List(items) => {
                let items: Vec<(Node, bool)> =
                    items.iter().map(|item| (self.node(&item.value), item.is_optional)).collect();
                literal_list(items)
            }
            ExprKind::Map(entries) => {
                let entries = entries.iter();
                Node::Map(
                    entries
                        .map(|e| (self.node(&e.key), self.node(&e.value), e.is_optional))
                        .collect(),
                )
            }
            ExprKind::Struct { name, fields } => Node::Object {
                ty: name.as_str().into(),
                fields: fields
                    .iter()
                    .map(|f| (f.name.as_str().into(), self.node(&f.value), f.is_optional))
                    .collect(),
            },
            ExprKind::Fold(fold) => self.fold(fold),
            ExprKind::Bind(bind) => {
                let value = Box::new(self.node(&bind.value));
                self.locals.push(bind.name.clone());
                let body = Box::new(self.node(&bind.body));
                self.locals.pop();
                Node::Bind { value, body }
            }
            ExprKind::Missing => Node::Missing,
        }
    }

    fn select(&mut self, select: &Select) -> Node {
        if let Reference::Variable(_) = self.reference(&select.operand)
            && matches!(&select.operand.kind, ExprKind::Name { name, .. } if name == "variables")
            && let Some(at) = self.environment.composed(&select.field)
        {
            return match (select.is_test, select.is_optional) {
                (true, _) => Node::Value(Value::Bool(true)),
                (_, true) => Node::List(Box::new([])),
                _ => Node::Composed(at),
            };
        }
        let operand = Box::new(self.node(&select.operand));
        let field: Arc<str> = select.field.as_str().into();
        match (select.is_test, select.is_optional) {
            (true, _) => Node::Test { operand, field },
            (_, true) => Node::OptionalSelect { operand, field },
            _ => Node::Select { operand, field },
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Node {
        let (name, target) = match self.reference(expr) {
            Reference::Function(name) => (name.clone(), None),
            _ => (call.function.clone(), call.target.as_ref()),
        };
        let mut args = Vec::with_capacity(call.args.len() + 1);
        if let Some(target) = target {
            args.push(self.node(target));
        }
        args.append(&mut self.nodes(&call.args));
        let args = match self.operator(&name, args) {
            Ok(node) => return node,
            Err(args) => args,
        };
        if name == "matches"
            && let [_, Node::Value(Value::String(pattern))] = &args[..]
            && let Ok(regex) = library::regex::compile(pattern)
        {
            let cost = crate::charge::pattern_cost(pattern);
            let text = Box::new(args.into_iter().next().unwrap_or(Node::Missing));
            return Node::Matches { text, regex, cost };
        }
        let Some(run) = functions::find(&name).and_then(|function| function.run) else {
            return Node::Missing;
        };
        let charge = Charge::of(&name);
        Node::Call(Box::new(Called { run, args: args.into(), charge, name: name.into() }))
    }

    /// Operators that do not evaluate all their operands, and the most usual one.
    fn operator(&self, name: &str, args: Vec<Node>) -> Result<Node, Vec<Node>> {
        let two = |args: Vec<Node>| <[Node; 2]>::try_from(args).map(Box::new);
        match name {
            operator::AND => two(args).map(Node::And),
            operator::OR => two(args).map(Node::Or),
            operator::CONDITIONAL => {
                <[Node; 3]>::try_from(args).map(|args| Node::Conditional(Box::new(args)))
            }
            operator::EQUALS => two(args).map(|args| Node::Equals(args, true)),
            operator::NOT_EQUALS => two(args).map(|args| Node::Equals(args, false)),
            _ => Err(args),
        }
    }

    fn fold(&mut self, fold: &Fold) -> Node {
        let range = self.node(&fold.range);
        let before = self.locals.len();
        self.locals.push(fold.first.clone());
        self.locals.extend(fold.second.clone());
        let filter = fold.filter.as_ref().map(|filter| self.node(filter));
        let step = self.node(&fold.step);
        self.locals.truncate(before);
        let (kind, has_two) = (fold.kind, fold.second.is_some());
        Node::Fold(Box::new(Folded { kind, range, has_two, filter, step }))
    }
}

fn value(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Shared(text.clone())),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

/// A list whose items are all known is made once.
fn literal_list(items: Vec<(Node, bool)>) -> Node {
    let known = |(node, is_optional): &(Node, bool)| match node {
        Node::Value(value) if !is_optional => Some(value.clone()),
        _ => None,
    };
    match items.iter().map(known).collect::<Option<Vec<_>>>() {
        Some(values) => Node::Value(Value::list(values)),
        None => Node::List(items.into()),
    }
}
