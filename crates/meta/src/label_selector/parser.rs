//! The text form of label selectors.

use std::collections::BTreeSet;

use super::{LabelOperator, LabelRequirement, LabelSelectorError};

pub(super) fn parse(text: &str) -> Result<Vec<LabelRequirement>, LabelSelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek(Words::Values).kind {
            Token::Identifier | Token::Not => {
                requirements.push(parser.requirement().map_err(in_requirement)?);
                let after = parser.take(Words::Values);
                match after.kind {
                    Token::End => return Ok(requirements),
                    Token::Comma => {
                        let next = parser.peek(Words::Values);
                        if !matches!(next.kind, Token::Identifier | Token::Not) {
                            return Err(parse_error(&next, ", expected: identifier after ','"));
                        }
                    }
                    _ => return Err(parse_error(&after, ", expected: ',' or 'end of string'")),
                }
            }
            Token::End => return Ok(requirements),
            _ => {
                let found = parser.peek(Words::Values);
                return Err(parse_error(&found, ", expected: !, identifier, or 'end of string'"));
            }
        }
    }
}

/// A requirement of a key alone. What is wrong with the key is said of nothing in particular.
fn of_key(key: String, operator: LabelOperator) -> Result<LabelRequirement, LabelSelectorError> {
    LabelRequirement::new(key, operator, []).map_err(|error| match error {
        LabelSelectorError::Requirement(text) => match text.strip_prefix("key: ") {
            Some(rest) => LabelSelectorError::Requirement(format!("<nil>: {rest}")),
            None => LabelSelectorError::Requirement(text),
        },
        other => other,
    })
}

fn parse_error(found: &Item, expected: &str) -> LabelSelectorError {
    LabelSelectorError::Parse(format!("found '{}'{expected}", found.text))
}

/// Whatever goes wrong inside a requirement is reported as such.
fn in_requirement(error: LabelSelectorError) -> LabelSelectorError {
    match error {
        LabelSelectorError::Parse(text) => LabelSelectorError::Requirement(text),
        other => other,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Identifier,
    Not,
    Equals,
    NotEquals,
    In,
    NotIn,
    Greater,
    Less,
    Open,
    Close,
    Comma,
    End,
    Unknown,
}

/// Whether `in` and `notin` are words of the grammar or plain values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Operators,
    Values,
}

#[derive(Clone)]
struct Item {
    kind: Token,
    text: String,
}

struct Parser {
    tokens: Vec<Item>,
    at: usize,
}

impl Parser {
    fn peek(&self, words: Words) -> Item {
        let mut item = self
            .tokens
            .get(self.at)
            .cloned()
            .unwrap_or_else(|| Item { kind: Token::End, text: String::new() });
        if words == Words::Values && matches!(item.kind, Token::In | Token::NotIn) {
            item.kind = Token::Identifier;
        }
        item
    }

    fn take(&mut self, words: Words) -> Item {
        let item = self.peek(words);
        self.at += 1;
        item
    }

    fn requirement(&mut self) -> Result<LabelRequirement, LabelSelectorError> {
        let mut key = self.take(Words::Values);
        let negated = key.kind == Token::Not;
        if negated {
            key = self.take(Words::Values);
        }
        if key.kind != Token::Identifier {
            return Err(parse_error(&key, ", expected: identifier"));
        }
        if negated {
            return of_key(key.text, LabelOperator::DoesNotExist);
        }
        if matches!(self.peek(Words::Values).kind, Token::End | Token::Comma) {
            return of_key(key.text, LabelOperator::Exists);
        }
        // The key is checked before the rest is read; upstream does not name it here.
        of_key(key.text.clone(), LabelOperator::Exists)?;
        let operator = self.take(Words::Operators);
        let (meaning, exact) = match operator.kind {
            Token::In => (LabelOperator::In, false),
            Token::NotIn => (LabelOperator::NotIn, false),
            Token::Equals => (LabelOperator::In, true),
            Token::NotEquals => (LabelOperator::NotIn, true),
            Token::Greater => (LabelOperator::GreaterThan, false),
            Token::Less => (LabelOperator::LessThan, false),
            _ => return Err(parse_error(&operator, ", expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = match operator.kind {
            Token::In | Token::NotIn => self.values()?,
            _ => BTreeSet::from([self.exact_value()?]),
        };
        let requirement = LabelRequirement::new(key.text, meaning, values)?;
        Ok(if exact { requirement.exact() } else { requirement })
    }

    fn exact_value(&mut self) -> Result<String, LabelSelectorError> {
        if matches!(self.peek(Words::Values).kind, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        let value = self.take(Words::Values);
        match value.kind {
            Token::Identifier => Ok(value.text),
            _ => Err(parse_error(&value, ", expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, LabelSelectorError> {
        let open = self.take(Words::Values);
        if open.kind != Token::Open {
            return Err(parse_error(&open, " expected: '('"));
        }
        let first = self.peek(Words::Values);
        match first.kind {
            Token::Identifier | Token::Comma => {
                let values = self.identifiers()?;
                let close = self.take(Words::Values);
                if close.kind != Token::Close {
                    return Err(parse_error(&close, ", expected: ')'"));
                }
                Ok(values)
            }
            Token::Close => {
                self.at += 1;
                // Upstream takes no value for an empty one.
                Ok(BTreeSet::from([String::new()]))
            }
            _ => Err(parse_error(&first, ", expected: ',', ')' or identifier")),
        }
    }

    fn identifiers(&mut self) -> Result<BTreeSet<String>, LabelSelectorError> {
        let mut values = BTreeSet::new();
        loop {
            let item = self.take(Words::Values);
            match item.kind {
                Token::Identifier => {
                    values.insert(item.text);
                    let next = self.peek(Words::Values);
                    match next.kind {
                        Token::Comma => {}
                        Token::Close => return Ok(values),
                        _ => return Err(parse_error(&next, ", expected: ',' or ')'")),
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek(Words::Values).kind {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.at += 1;
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                _ => return Err(parse_error(&item, ", expected: ',', or identifier")),
            }
        }
    }
}

fn tokens(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else { return items };
        let is_symbol = |c: char| "=!(),><".contains(c);
        let len = if is_symbol(first) {
            symbol_len(rest)
        } else {
            rest.find(|c| is_symbol(c) || " \t\r\n".contains(c)).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(len);
        items.push(Item { kind: token_of(word, is_symbol(first)), text: word.to_owned() });
        rest = after;
    }
}

/// The longest symbol of the grammar at the start of the text.
fn symbol_len(text: &str) -> usize {
    if text.starts_with("==") || text.starts_with("!=") { 2 } else { 1 }
}

fn token_of(word: &str, is_symbol: bool) -> Token {
    match word {
        "=" | "==" => Token::Equals,
        "!=" => Token::NotEquals,
        "!" => Token::Not,
        "(" => Token::Open,
        ")" => Token::Close,
        "," => Token::Comma,
        ">" => Token::Greater,
        "<" => Token::Less,
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ if is_symbol => Token::Unknown,
        _ => Token::Identifier,
    }
}
