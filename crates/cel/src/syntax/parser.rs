//! From tokens to tree.
//!
//! Mistakes have the texts of upstream's generated parser, which goes on after a mistake: a token
//! too many is skipped, a missing bracket is thought to be there, and nothing is reported twice
//! until a token fits again.

use super::ast::{Call, Entry, Expr, ExprKind, Item, Literal, Select, StructField, operator};
use super::lexer::{Kind, Token, tokens};
use super::{literal, macros};
use crate::escape::RESERVED;
use crate::source::{CompileErrors, Mistake, Offset, Place};

/// Most characters of an expression. Upstream: cel-go's default.
const MAX_CHARACTERS: usize = 100_000;
/// Deepest nesting. Upstream: cel-go's default.
const MAX_DEPTH: usize = 250;
/// Tallest tree. Whatever walks a tree needs so much stack; no text that upstream takes comes near.
const MAX_HEIGHT: u16 = 400;
/// Most mistakes that are reported.
const MAX_MISTAKES: usize = 100;
/// Most expressions of a tree, those that macros make included.
const MAX_EXPRESSIONS: u32 = 500_000;

/// What an operand may begin with, as mistakes have it.
const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                       NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Reads an expression; also the number of expressions in it.
pub(crate) fn parse(text: &str) -> Result<(Expr, u32), CompileErrors> {
    let fail = |text: &str, mistakes| Err(CompileErrors::new(text, mistakes));
    let size = text.chars().count();
    if size > MAX_CHARACTERS {
        let message = format!(
            "expression code point size exceeds limit: size: {size}, limit {MAX_CHARACTERS}"
        );
        return fail(text, vec![Mistake { at: Place::Nowhere, text: message }]);
    }
    let (tokens, mistakes) = tokens(text);
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        ids: 0,
        is_recovering: false,
        is_too_deep: false,
        mistakes,
    };
    let expr = parser.expression();
    parser.end();
    if parser.is_too_deep {
        let message = format!("expression recursion limit exceeded: {MAX_DEPTH}");
        return fail(text, vec![Mistake { at: Place::Nowhere, text: message }]);
    }
    if parser.mistakes.is_empty() { Ok((expr, parser.ids)) } else { fail(text, parser.mistakes) }
}

pub(super) struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
    depth: usize,
    ids: u32,
    /// Whether a mistake was reported and no token fitted since.
    is_recovering: bool,
    is_too_deep: bool,
    mistakes: Vec<Mistake>,
}

impl<'t> Parser<'t> {
    pub(super) fn expr(&mut self, at: Offset, kind: ExprKind) -> Expr {
        let id = self.ids;
        self.ids = self.ids.saturating_add(1);
        let height = kind.height();
        if height > MAX_HEIGHT || id > MAX_EXPRESSIONS {
            self.is_too_deep = true;
            // Nothing more is to be read.
            self.next = self.tokens.len() - 1;
            return Expr { at, id, height: 1, kind: ExprKind::Missing };
        }
        Expr { at, id, height, kind }
    }

    pub(super) fn call(&mut self, at: Offset, function: &str, args: Vec<Expr>) -> Expr {
        let call = Call { function: function.to_owned(), target: None, args };
        self.expr(at, ExprKind::Call(Box::new(call)))
    }

    pub(super) fn mistake(&mut self, at: Offset, text: impl Into<String>) {
        if self.mistakes.len() < MAX_MISTAKES {
            self.mistakes.push(Mistake { at: Place::At(at), text: text.into() });
        }
    }

    fn syntax(&mut self, at: Offset, text: String) {
        if !self.is_recovering {
            self.mistake(at, format!("Syntax error: {text}"));
        }
        self.is_recovering = true;
    }

    fn token(&self) -> Token<'t> {
        self.tokens[self.next].clone()
    }

    fn after(&self, ahead: usize) -> &Kind {
        &self.tokens[(self.next + ahead).min(self.tokens.len() - 1)].kind
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.after(0), Kind::Mark(text) if *text == mark)
    }

    fn advance(&mut self) -> Token<'t> {
        let token = self.token();
        if token.kind != Kind::End {
            self.next += 1;
        }
        token
    }

    /// Takes a token that fits.
    fn take(&mut self) -> Token<'t> {
        self.is_recovering = false;
        self.advance()
    }

    fn eat(&mut self, mark: &str) -> Option<Token<'t>> {
        self.is(mark).then(|| self.take())
    }

    /// Takes what must come, or goes on as if it had.
    fn expect(&mut self, mark: &'static str) {
        if self.eat(mark).is_some() {
            return;
        }
        let token = self.token();
        if matches!(self.after(1), Kind::Mark(text) if *text == mark) {
            self.syntax(token.at, format!("extraneous input '{}' expecting '{mark}'", token.text));
            self.advance();
            self.take();
        } else if mark != ":" && self.can_follow_operand(&token.kind) {
            self.syntax(token.at, format!("missing '{mark}' at '{}'", token.text));
        } else {
            self.syntax(token.at, format!("mismatched input '{}' expecting '{mark}'", token.text));
        }
    }

    fn end(&mut self) {
        let token = self.token();
        if token.kind == Kind::End {
            return;
        }
        let word = if *self.after(1) == Kind::End { "extraneous" } else { "mismatched" };
        self.syntax(token.at, format!("{word} input '{}' expecting <EOF>", token.text));
    }

    fn can_follow_operand(&self, kind: &Kind) -> bool {
        match kind {
            Kind::End => true,
            Kind::Mark(text) => !matches!(*text, "!" | "(" | "{" | "true" | "false" | "null"),
            _ => false,
        }
    }

    fn begins_operand(kind: &Kind) -> bool {
        match kind {
            Kind::Mark(text) => {
                matches!(*text, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null")
            }
            Kind::End | Kind::Quoted => false,
            _ => true,
        }
    }

    /// Runs one level deeper, unless that is too deep.
    fn deeper(&mut self, inner: impl FnOnce(&mut Self) -> Expr) -> Expr {
        if self.depth >= MAX_DEPTH || self.is_too_deep {
            self.is_too_deep = true;
            // Nothing more is to be read.
            self.next = self.tokens.len() - 1;
            let at = self.token().at;
            return self.expr(at, ExprKind::Missing);
        }
        self.depth += 1;
        let expr = inner(self);
        self.depth -= 1;
        expr
    }

    fn expression(&mut self) -> Expr {
        self.deeper(|parser| {
            let condition = parser.binary(0);
            let Some(question) = parser.eat("?") else { return condition };
            let yes = parser.binary(0);
            parser.expect(":");
            let no = parser.expression();
            parser.call(question.at, operator::CONDITIONAL, vec![condition, yes, no])
        })
    }

    /// Operators of a level and those that bind more closely.
    fn binary(&mut self, level: usize) -> Expr {
        const LEVELS: [&[(&str, &str)]; 5] = [
            &[("||", operator::OR)],
            &[("&&", operator::AND)],
            &[
                ("<", "_<_"),
                ("<=", "_<=_"),
                (">=", "_>=_"),
                (">", "_>_"),
                ("==", operator::EQUALS),
                ("!=", operator::NOT_EQUALS),
                ("in", operator::IN),
            ],
            &[("+", operator::ADD), ("-", "_-_")],
            &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let first = self.binary(level + 1);
        let mut terms = vec![first];
        let mut found: Vec<(Offset, &str)> = Vec::new();
        while let Kind::Mark(mark) = *self.after(0)
            && let Some((_, function)) = operators.iter().find(|(known, _)| *known == mark)
        {
            found.push((self.take().at, function));
            terms.push(self.binary(level + 1));
        }
        if level < 2 { self.balanced(terms, &found) } else { self.leftmost(terms, &found) }
    }

    fn leftmost(&mut self, terms: Vec<Expr>, operators: &[(Offset, &str)]) -> Expr {
        // Evaluation goes as deep as the tree is, and so must be bounded as nesting is.
        if operators.len() + self.depth > MAX_DEPTH {
            self.is_too_deep = true;
        }
        let mut terms = terms.into_iter();
        let mut left = match terms.next() {
            Some(first) => first,
            None => self.expr(0, ExprKind::Missing),
        };
        for (right, (at, function)) in terms.zip(operators) {
            left = self.call(*at, function, vec![left, right]);
        }
        left
    }

    /// Chains of `&&` and `||` become flat trees.
    fn balanced(&mut self, mut terms: Vec<Expr>, operators: &[(Offset, &str)]) -> Expr {
        if terms.len() == 1 {
            return terms.remove(0);
        }
        let middle = terms.len() / 2;
        let right = terms.split_off(middle);
        let (at, function) = operators[middle - 1];
        let left = self.balanced(terms, &operators[..middle - 1]);
        let right = self.balanced(right, &operators[middle..]);
        self.call(at, function, vec![left, right])
    }

    fn unary(&mut self) -> Expr {
        for (mark, function) in [("!", operator::NOT), ("-", operator::NEGATE)] {
            if !self.is(mark) {
                continue;
            }
            let at = self.token().at;
            let is_number = matches!(self.after(1), Kind::Int | Kind::Float);
            if mark == "-" && is_number {
                break;
            }
            let mut count = 0_usize;
            while self.eat(mark).is_some() {
                count += 1;
            }
            let operand = self.member();
            // Two of them are none.
            return if count % 2 == 1 { self.call(at, function, vec![operand]) } else { operand };
        }
        self.member()
    }

    /// A primary with what is selected, called and indexed of it.
    fn member(&mut self) -> Expr {
        let mut expr = self.primary();
        let mut links = 0;
        loop {
            links += 1;
            if links + self.depth > MAX_DEPTH {
                self.is_too_deep = true;
                return expr;
            }
            if self.is(".") {
                expr = match self.selection(expr) {
                    Ok(expr) => expr,
                    Err(expr) => return expr,
                };
            } else if let Some(open) = self.eat("[") {
                let is_optional = self.eat("?").is_some();
                let index = self.expression();
                self.expect("]");
                let function = if is_optional { operator::OPTIONAL_INDEX } else { operator::INDEX };
                expr = self.call(open.at, function, vec![expr, index]);
            } else {
                return expr;
            }
        }
    }

    /// `.field`, `.?field` or `.method()`; what was before when it is none of them.
    fn selection(&mut self, operand: Expr) -> Result<Expr, Expr> {
        let dot = self.take();
        let is_optional = self.eat("?").is_some();
        let token = self.token();
        if !matches!(token.kind, Kind::Identifier | Kind::Quoted) {
            let text = if token.kind == Kind::End { "" } else { token.text };
            let optional = if is_optional { "?" } else { "" };
            self.syntax(token.at, format!("no viable alternative at input '.{optional}{text}'"));
            self.advance();
            return Err(operand);
        }
        self.take();
        self.unsupported(&token);
        let name = token.text.trim_matches('`').to_owned();
        if !is_optional && token.kind == Kind::Identifier && self.is("(") {
            let at = self.take().at;
            let args = self.arguments(")");
            return Ok(macros::member(self, at, operand, name, args));
        }
        let at = dot.at;
        let select = Select { operand, field: name, is_test: false, is_optional };
        Ok(self.expr(at, ExprKind::Select(Box::new(select))))
    }

    /// Upstream's grammar has names in backquotes, which its environment does not allow.
    fn unsupported(&mut self, token: &Token<'_>) {
        if token.kind == Kind::Quoted {
            self.mistake(token.at, "unsupported syntax: '`'");
        }
    }

    /// Expressions up to a bracket.
    fn arguments(&mut self, close: &'static str) -> Vec<Expr> {
        let mut args = Vec::new();
        if self.eat(close).is_some() {
            return args;
        }
        loop {
            args.push(self.expression());
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect(close);
        args
    }

    fn primary(&mut self) -> Expr {
        let mut token = self.token();
        if !Self::begins_operand(&token.kind) {
            if Self::begins_operand(self.after(1)) {
                self.syntax(
                    token.at,
                    format!("extraneous input '{}' expecting {OPERAND}", token.text),
                );
                self.advance();
                token = self.token();
            } else {
                self.syntax(
                    token.at,
                    format!("mismatched input '{}' expecting {OPERAND}", token.text),
                );
                return self.expr(token.at, ExprKind::Missing);
            }
        }
        match &token.kind {
            Kind::Mark("(") => {
                self.take();
                let inner = self.expression();
                self.expect(")");
                inner
            }
            Kind::Mark("[") => self.list(),
            Kind::Mark("{") => self.map(),
            Kind::Mark(".") => {
                self.take();
                self.named(token.at, true)
            }
            Kind::Identifier => self.named(token.at, false),
            Kind::Mark("!") => self.unary(),
            _ => self.literal(),
        }
    }

    /// A name, a call of a function, or the construction of an object.
    fn named(&mut self, at: Offset, is_global: bool) -> Expr {
        let token = self.token();
        if token.kind != Kind::Identifier {
            let text = if token.kind == Kind::End { "" } else { token.text };
            self.syntax(token.at, format!("no viable alternative at input '.{text}'"));
            self.advance();
            return self.expr(at, ExprKind::Missing);
        }
        if let Some(fields) = self.construction(is_global) {
            return fields;
        }
        self.take();
        let name = token.text.to_owned();
        if RESERVED.contains(&&*name) {
            self.mistake(token.at, format!("reserved identifier: {name}"));
        }
        let name = if is_global { format!(".{name}") } else { name };
        if let Some(open) = self.eat("(") {
            let args = self.arguments(")");
            let name = name.trim_start_matches('.').to_owned();
            return macros::global(self, open.at, name, args);
        }
        let name = name.trim_start_matches('.').to_owned();
        self.expr(at, ExprKind::Name { name, is_global })
    }

    /// `a.b.C{…}`, when the names ahead end in a brace.
    fn construction(&mut self, is_global: bool) -> Option<Expr> {
        let mut ahead = 1;
        while matches!(self.after(ahead), Kind::Mark("."))
            && *self.after(ahead + 1) == Kind::Identifier
        {
            ahead += 2;
        }
        if !matches!(self.after(ahead), Kind::Mark("{")) {
            return None;
        }
        let mut name = if is_global { ".".to_owned() } else { String::new() };
        for _ in 0..ahead {
            name.push_str(self.take().text);
        }
        let at = self.take().at;
        let name = name.trim_start_matches('.').to_owned();
        let mut fields = Vec::new();
        while !self.is("}") {
            let is_optional = self.eat("?").is_some();
            let field = self.token();
            if !matches!(field.kind, Kind::Identifier | Kind::Quoted) {
                let expecting = "{'}', ',', IDENTIFIER}";
                let word =
                    if *self.after(1) == Kind::Identifier { "extraneous" } else { "mismatched" };
                self.syntax(
                    field.at,
                    format!("{word} input '{}' expecting {expecting}", field.text),
                );
                self.advance();
                if word == "extraneous" {
                    continue;
                }
                break;
            }
            self.take();
            self.unsupported(&field);
            let at = self.token().at;
            self.expect(":");
            let value = self.expression();
            let name = field.text.trim_matches('`').to_owned();
            fields.push(StructField { at, name, value, is_optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("}");
        Some(self.expr(at, ExprKind::Struct { name, fields }))
    }

    fn list(&mut self) -> Expr {
        let at = self.take().at;
        let mut items = Vec::new();
        while !self.is("]") {
            let is_optional = self.eat("?").is_some();
            items.push(Item { value: self.expression(), is_optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("]");
        self.expr(at, ExprKind::List(items))
    }

    fn map(&mut self) -> Expr {
        let at = self.take().at;
        let mut entries = Vec::new();
        while !self.is("}") {
            let is_optional = self.eat("?").is_some();
            let key = self.expression();
            self.expect(":");
            let value = self.expression();
            entries.push(Entry { key, value, is_optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("}");
        self.expr(at, ExprKind::Map(entries))
    }

    fn literal(&mut self) -> Expr {
        let first = self.take();
        let (sign, token) = match first.kind {
            Kind::Mark("-") => ("-", self.take()),
            _ => ("", first.clone()),
        };
        let text = token.text;
        let literal = match token.kind {
            Kind::Mark("true") => Some(Literal::Bool(true)),
            Kind::Mark("false") => Some(Literal::Bool(false)),
            Kind::Mark("null") => Some(Literal::Null),
            Kind::Int => int(sign, text).map(Literal::Int),
            Kind::Uint => uint(text).map(Literal::Uint),
            Kind::Float => format!("{sign}{text}").parse().ok().map(Literal::Double),
            Kind::Bytes => Some(Literal::Bytes(literal::unquote(text, true).into())),
            Kind::String => {
                let bytes = literal::unquote(text, false);
                Some(Literal::String(String::from_utf8_lossy(&bytes).into()))
            }
            _ => None,
        };
        match literal {
            Some(literal) => self.expr(first.at, ExprKind::Literal(literal)),
            None => {
                let what = match token.kind {
                    Kind::Int => "invalid int literal",
                    Kind::Uint => "invalid uint literal",
                    _ => "invalid double literal",
                };
                self.mistake(first.at, what);
                self.expr(first.at, ExprKind::Missing)
            }
        }
    }
}

fn int(sign: &str, text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16).ok(),
        None => format!("{sign}{text}").parse().ok(),
    }
}

fn uint(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(['u', 'U']);
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
