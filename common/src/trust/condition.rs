//! `where` of a gate's rule: CEL over the predicate of a statement (docs/formats.md, "Trust root").
//!
//! As with conditions of steps, the `cel` crate parses, and what it makes is lowered to expressions of our own: there is
//! nothing in them that could call out, and what an evaluation may cost is bounded, whatever a predicate holds. Types are
//! those of the predicate, so that they are found wrong only then; a statement over which it fails does not count.

use std::{borrow::Cow, cmp::Ordering};

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators},
    parser::Parser,
};
use regex::Regex;
use serde_json::{Map, Number, Value};

use super::refusal::shown;
use crate::{
    limits::WHERE_COST,
    plan::{bounded_regex, condition::guard},
};

/// The one name that there is outside of a loop.
const PREDICATE: &str = "predicate";

/// A `where`, checked.
#[derive(Clone, Debug)]
pub struct Where(Node);

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`where` at byte {at}: {why}")]
pub struct InvalidWhere {
    pub at: usize,
    pub why: String,
}

/// Why it comes to nothing over a predicate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhereFailed {
    #[error("it has no field \"{}\"", shown(.0))]
    NoField(String),
    #[error("it has no element {0}")]
    NoElement(String),
    #[error("{what} does not apply to {found}")]
    WrongType { what: &'static str, found: &'static str },
    #[error("it costs too much over this predicate")]
    TooMuch,
}

#[derive(Clone, Debug)]
enum Node {
    Literal(Value),
    Predicate,
    /// The variable of the loop around it; there is never more than one.
    Element,
    Field(Box<Self>, String),
    Has(Box<Self>, String),
    Index(Box<Self>, Box<Self>),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Choice(Box<Self>, Box<Self>, Box<Self>),
    Same(Box<Self>, Box<Self>),
    Order(Comparison, Box<Self>, Box<Self>),
    In(Box<Self>, Box<Self>),
    Size(Box<Self>),
    Test(TextTest, Box<Self>, Box<Self>),
    Matches(Box<Self>, Regex),
    All(Box<Self>, Box<Self>),
    Exists(Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug)]
enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

impl Where {
    /// Parses, and checks all that does not depend on a predicate.
    pub fn compile(text: &str) -> Result<Self, InvalidWhere> {
        let refuse = |at, why: String| Err(InvalidWhere { at, why });
        if let Err(problem) = guard::check(text) {
            return refuse(problem.span.start, problem.message);
        }
        match Parser::new().max_recursion_depth(guard::DEPTH).parse(text) {
            Ok(tree) => {
                lower(&tree, None).map(Self).map_err(|why| InvalidWhere { at: 0, why: guard::one_line(&why) })
            }
            Err(errors) => {
                let why = errors.errors.first().map_or("it cannot be parsed", |error| error.msg.as_str());
                refuse(0, format!("not CEL: {}", guard::one_line(why)))
            }
        }
    }

    /// Whether it holds. What is no bool is no yes.
    pub fn holds(&self, predicate: &Value) -> Result<bool, WhereFailed> {
        let mut evaluation = Evaluation { predicate, element: None, left: WHERE_COST };
        evaluation.bool(&self.0)
    }
}

fn lower(node: &IdedExpr, element: Option<&str>) -> Result<Node, String> {
    match &node.expr {
        Expr::Literal(literal) => scalar(literal).map(Node::Literal),
        Expr::Ident(name) if Some(name.as_str()) == element => Ok(Node::Element),
        Expr::Ident(name) if name == PREDICATE => Ok(Node::Predicate),
        Expr::Ident(name) => Err(format!("unknown name `{name}`; there is `predicate`")),
        Expr::Select(SelectExpr { operand, field, test }) => {
            let operand = Box::new(lower(operand, element)?);
            Ok(match test {
                true => Node::Has(operand, field.clone()),
                false => Node::Field(operand, field.clone()),
            })
        }
        Expr::Call(call) => lower_call(call, element),
        Expr::List(list) => {
            // Of literals only: no evaluation copies what a predicate holds.
            let item = |item: &IdedExpr| {
                let Expr::Literal(literal) = &item.expr else {
                    return Err("a list holds literals".to_owned());
                };
                scalar(literal)
            };
            let items: Vec<Value> = list.elements.iter().map(item).collect::<Result<_, _>>()?;
            Ok(Node::Literal(Value::Array(items)))
        }
        Expr::Comprehension(_) if element.is_some() => Err("a loop inside of a loop".to_owned()),
        Expr::Comprehension(comprehension) => lower_loop(comprehension),
        Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
            Err("there are no maps and no messages".to_owned())
        }
    }
}

fn scalar(literal: &LiteralValue) -> Result<Value, String> {
    Ok(match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Int(value) => Value::from(*value.inner()),
        LiteralValue::Double(value) => Value::from(*value.inner()),
        LiteralValue::String(value) => Value::from(value.inner().to_owned()),
        LiteralValue::Null => Value::Null,
        LiteralValue::Bytes(_) | LiteralValue::UInt(_) => {
            return Err("a literal is null, true, false, a number or a string".to_owned());
        }
    })
}

/// `all` and `exists`, as the parser expands them: what they begin with and how they go on tells them apart.
fn lower_loop(comprehension: &ComprehensionExpr) -> Result<Node, String> {
    let known = || -> Option<(bool, &IdedExpr)> {
        let Expr::Literal(LiteralValue::Boolean(first)) = &comprehension.accu_init.expr else { return None };
        let Expr::Call(step) = &comprehension.loop_step.expr else { return None };
        let (_, body) = <&[IdedExpr; 2]>::try_from(step.args.as_slice()).ok().map(|[a, b]| (a, b))?;
        Some((*first.inner(), body))
    };
    let Some((every, body)) = known() else {
        return Err("of loops there are `all` and `exists`".to_owned());
    };
    if comprehension.iter_var == PREDICATE {
        return Err(format!("the variable of a loop cannot be called `{PREDICATE}`"));
    }
    let range = Box::new(lower(&comprehension.iter_range, None)?);
    let body = Box::new(lower(body, Some(&comprehension.iter_var))?);
    Ok(if every { Node::All(range, body) } else { Node::Exists(range, body) })
}

fn lower_call(call: &CallExpr, element: Option<&str>) -> Result<Node, String> {
    let boxed = |node: &IdedExpr| lower(node, element).map(Box::new);
    let name = call.func_name.as_str();
    match (&call.target, name, call.args.as_slice()) {
        (None, operators::LOGICAL_NOT, [inner]) => Ok(Node::Not(boxed(inner)?)),
        (None, operators::LOGICAL_AND, [left, right]) => Ok(Node::And(boxed(left)?, boxed(right)?)),
        (None, operators::LOGICAL_OR, [left, right]) => Ok(Node::Or(boxed(left)?, boxed(right)?)),
        (None, operators::CONDITIONAL, [test, yes, no]) => {
            Ok(Node::Choice(boxed(test)?, boxed(yes)?, boxed(no)?))
        }
        (None, operators::EQUALS, [left, right]) => Ok(Node::Same(boxed(left)?, boxed(right)?)),
        (None, operators::NOT_EQUALS, [left, right]) => {
            Ok(Node::Not(Box::new(Node::Same(boxed(left)?, boxed(right)?))))
        }
        (None, operators::LESS, [left, right]) => {
            Ok(Node::Order(Comparison::Less, boxed(left)?, boxed(right)?))
        }
        (None, operators::LESS_EQUALS, [left, right]) => {
            Ok(Node::Order(Comparison::LessOrEqual, boxed(left)?, boxed(right)?))
        }
        (None, operators::GREATER, [left, right]) => {
            Ok(Node::Order(Comparison::Greater, boxed(left)?, boxed(right)?))
        }
        (None, operators::GREATER_EQUALS, [left, right]) => {
            Ok(Node::Order(Comparison::GreaterOrEqual, boxed(left)?, boxed(right)?))
        }
        (None, operators::IN, [item, list]) => Ok(Node::In(boxed(item)?, boxed(list)?)),
        (None, operators::INDEX, [whole, key]) => Ok(Node::Index(boxed(whole)?, boxed(key)?)),
        (None, "size", [whole]) => Ok(Node::Size(boxed(whole)?)),
        (Some(whole), "size", []) => Ok(Node::Size(boxed(whole)?)),
        (Some(text), "startsWith", [part]) => {
            Ok(Node::Test(TextTest::StartsWith, boxed(text)?, boxed(part)?))
        }
        (Some(text), "endsWith", [part]) => Ok(Node::Test(TextTest::EndsWith, boxed(text)?, boxed(part)?)),
        (Some(text), "contains", [part]) => Ok(Node::Test(TextTest::Contains, boxed(text)?, boxed(part)?)),
        (Some(text), "matches", [IdedExpr { expr: Expr::Literal(LiteralValue::String(pattern)), .. }]) => {
            match bounded_regex(pattern.inner()) {
                Ok(regex) => Ok(Node::Matches(boxed(text)?, regex)),
                Err(_) => Err("`matches` takes a regular expression, and no too large one".to_owned()),
            }
        }
        _ => Err(format!(
            "`{}` is not among what `where` has, or takes other arguments",
            name.trim_matches('_')
        )),
    }
}

struct Evaluation<'a> {
    predicate: &'a Value,
    element: Option<&'a Value>,
    left: usize,
}

type Found<'a> = Result<Cow<'a, Value>, WhereFailed>;

impl<'a> Evaluation<'a> {
    fn value(&mut self, node: &'a Node) -> Found<'a> {
        self.pay(1)?;
        Ok(match node {
            Node::Literal(value) => Cow::Borrowed(value),
            Node::Predicate => Cow::Borrowed(self.predicate),
            // Lowered only inside of a loop.
            Node::Element => Cow::Borrowed(self.element.unwrap_or(&Value::Null)),
            Node::Field(whole, name) => {
                let whole = self.value(whole)?;
                Cow::Borrowed(field(whole, name)?.ok_or_else(|| WhereFailed::NoField(name.clone()))?)
            }
            Node::Has(whole, name) => {
                let whole = self.value(whole)?;
                Cow::Owned(Value::Bool(field(whole, name)?.is_some()))
            }
            Node::Index(whole, key) => {
                let (whole, key) = (self.value(whole)?, self.value(key)?);
                Cow::Borrowed(element(whole, &key)?)
            }
            Node::Choice(test, yes, no) => match self.bool(test)? {
                true => self.value(yes)?,
                false => self.value(no)?,
            },
            Node::Size(whole) => Cow::Owned(Value::from(size(&*self.value(whole)?)?)),
            Node::Not(_)
            | Node::And(..)
            | Node::Or(..)
            | Node::Same(..)
            | Node::Order(..)
            | Node::In(..)
            | Node::Test(..)
            | Node::Matches(..)
            | Node::All(..)
            | Node::Exists(..) => Cow::Owned(Value::Bool(self.truth(node)?)),
        })
    }

    fn bool(&mut self, node: &'a Node) -> Result<bool, WhereFailed> {
        let value = self.value(node)?;
        value.as_bool().ok_or_else(|| wrong("a condition", &value))
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, WhereFailed> {
        match node {
            Node::Not(inner) => Ok(!self.bool(inner)?),
            // As CEL has it: where one side decides, what is wrong with the other does not matter.
            Node::And(left, right) => match self.bool(left) {
                Ok(true) => self.bool(right),
                Ok(false) => Ok(false),
                Err(failed) => {
                    if self.bool(right)? {
                        Err(failed)
                    } else {
                        Ok(false)
                    }
                }
            },
            Node::Or(left, right) => match self.bool(left) {
                Ok(false) => self.bool(right),
                Ok(true) => Ok(true),
                Err(failed) => {
                    if self.bool(right)? {
                        Ok(true)
                    } else {
                        Err(failed)
                    }
                }
            },
            Node::Same(left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.same(&left, &right)
            }
            Node::Order(comparison, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                Ok(comparison.holds(order(&left, &right)?))
            }
            Node::In(item, whole) => {
                let (item, whole) = (self.value(item)?, self.value(whole)?);
                match (&*item, &*whole) {
                    (item, Value::Array(items)) => {
                        for other in items {
                            if self.same(item, other)? {
                                return Ok(true);
                            }
                        }
                        Ok(false)
                    }
                    (Value::String(key), Value::Object(fields)) => Ok(fields.contains_key(key)),
                    (_, other) => Err(wrong("`in`", other)),
                }
            }
            Node::Test(test, text, part) => {
                let (text, part) = (self.value(text)?, self.value(part)?);
                let (text, part) = (text_of(&text)?, text_of(&part)?);
                self.pay(text.len())?;
                Ok(test.holds(text, part))
            }
            Node::Matches(text, regex) => {
                let text = self.value(text)?;
                let text = text_of(&text)?;
                self.pay(text.len())?;
                Ok(regex.is_match(text))
            }
            Node::All(range, body) => Ok(!self.any(range, body, Seek::Counterexample)?),
            Node::Exists(range, body) => self.any(range, body, Seek::Example),
            Node::Literal(_)
            | Node::Predicate
            | Node::Element
            | Node::Field(..)
            | Node::Has(..)
            | Node::Index(..)
            | Node::Choice(..)
            | Node::Size(_) => self.bool(node),
        }
    }

    /// Whether one element decides. What fails over one element fails all, unless another decides.
    fn any(&mut self, range: &'a Node, body: &'a Node, seek: Seek) -> Result<bool, WhereFailed> {
        // Inside of a loop there is none, and a range that is made on the way is as long as its text.
        let range = self.value(range)?;
        let keys;
        let items: Vec<&Value> = match &*range {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => {
                keys = fields.keys().map(|key| Value::from(key.as_str())).collect::<Vec<_>>();
                keys.iter().collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(wrong("a loop", &range));
            }
        };
        let mut failed = None;
        for item in items {
            let mut inner = Evaluation { predicate: self.predicate, element: Some(item), left: self.left };
            let held = inner.bool(body);
            self.left = inner.left;
            match held {
                Ok(held) if held == (seek == Seek::Example) => return Ok(true),
                Ok(_) => {}
                Err(WhereFailed::TooMuch) => return Err(WhereFailed::TooMuch),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(false), Err)
    }

    fn same(&mut self, left: &Value, right: &Value) -> Result<bool, WhereFailed> {
        self.pay(1)?;
        Ok(match (left, right) {
            (Value::Number(left), Value::Number(right)) => numbers(left, right) == Some(Ordering::Equal),
            (Value::String(left), Value::String(right)) => {
                self.pay(left.len().min(right.len()))?;
                left == right
            }
            (Value::Array(left), Value::Array(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right) {
                    if !self.same(left, right)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Object(left), Value::Object(right)) => return self.same_fields(left, right),
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Null, Value::Null) => true,
            (
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_),
                _,
            ) => false,
        })
    }

    fn same_fields(
        &mut self,
        left: &Map<String, Value>,
        right: &Map<String, Value>,
    ) -> Result<bool, WhereFailed> {
        if left.len() != right.len() {
            return Ok(false);
        }
        for (name, left) in left {
            match right.get(name) {
                Some(right) if self.same(left, right)? => {}
                Some(_) | None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn pay(&mut self, cost: usize) -> Result<(), WhereFailed> {
        let left = self.left.checked_sub(cost);
        // Nothing more is had for less.
        self.left = left.unwrap_or(0);
        left.map(drop).ok_or(WhereFailed::TooMuch)
    }
}

/// What a loop looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seek {
    Example,
    Counterexample,
}

/// What is made on the way has no fields: only a predicate has, and a list of literals has elements.
fn field<'a>(whole: Cow<'a, Value>, name: &str) -> Result<Option<&'a Value>, WhereFailed> {
    let Cow::Borrowed(Value::Object(fields)) = whole else { return Err(wrong("a field", &whole)) };
    Ok(fields.get(name))
}

fn element<'a>(whole: Cow<'a, Value>, key: &Value) -> Result<&'a Value, WhereFailed> {
    let found = match (whole, key) {
        (Cow::Borrowed(Value::Object(fields)), Value::String(name)) => fields.get(name),
        (Cow::Borrowed(Value::Array(items)), Value::Number(number)) => {
            number.as_u64().and_then(|index| items.get(usize::try_from(index).ok()?))
        }
        (other, _) => return Err(wrong("`[...]`", &other)),
    };
    found.ok_or_else(|| WhereFailed::NoElement(key.to_string()))
}

fn size(whole: &Value) -> Result<usize, WhereFailed> {
    match whole {
        Value::String(text) => Ok(text.chars().count()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(fields) => Ok(fields.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) => Err(wrong("`size`", whole)),
    }
}

fn order(left: &Value, right: &Value) -> Result<Ordering, WhereFailed> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b).ok_or_else(|| wrong("a comparison", left)),
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(_) | Value::String(_), other) | (other, _) => Err(wrong("a comparison", other)),
    }
}

/// Integers exactly; beside a fraction as fractions.
fn numbers(left: &Number, right: &Number) -> Option<Ordering> {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        (Some(_) | None, _) => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn text_of(value: &Value) -> Result<&str, WhereFailed> {
    value.as_str().ok_or_else(|| wrong("a function of strings", value))
}

fn wrong(what: &'static str, found: &Value) -> WhereFailed {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    WhereFailed::WrongType { what, found }
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl TextTest {
    fn holds(self, text: &str, part: &str) -> bool {
        match self {
            Self::StartsWith => text.starts_with(part),
            Self::EndsWith => text.ends_with(part),
            Self::Contains => text.contains(part),
        }
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
