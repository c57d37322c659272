//! Typed expressions: what a condition is after its types were checked, and how it comes to a value.

use std::{collections::BTreeMap, fmt};

use regex::Regex;

/// The values of the inputs, by how they are written.
pub(super) type Values = BTreeMap<String, Value>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
}

#[derive(Clone, Debug)]
pub(super) enum Predicate {
    Literal(bool),
    Input(String),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Choice(Box<Self>, Box<Self>, Box<Self>),
    SameBool(Box<Self>, Box<Self>),
    CompareInts(Comparison, Number, Number),
    CompareTexts(Comparison, Words, Words),
    IntIn(Number, Vec<Number>),
    TextIn(Words, Vec<Words>),
    TextTest(TextTest, Words, Words),
    Matches(Words, Regex),
}

#[derive(Clone, Debug)]
pub(super) enum Number {
    Literal(i64),
    Input(String),
    Negate(Box<Self>),
    Arithmetic(Arithmetic, Box<Self>, Box<Self>),
    Choice(Box<Predicate>, Box<Self>, Box<Self>),
}

#[derive(Clone, Debug)]
pub(super) enum Words {
    Literal(String),
    Input(String),
    Concatenation(Box<Self>, Box<Self>),
    Choice(Box<Predicate>, Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

impl Predicate {
    pub(super) fn evaluate(&self, values: &Values) -> Result<bool, String> {
        Ok(match self {
            Self::Literal(value) => *value,
            Self::Input(name) => match values.get(name) {
                Some(Value::Bool(value)) => *value,
                Some(Value::Int(_) | Value::Text(_)) | None => return Err(missing(name)),
            },
            Self::Not(inner) => !inner.evaluate(values)?,
            Self::And(left, right) => left.evaluate(values)? && right.evaluate(values)?,
            Self::Or(left, right) => left.evaluate(values)? || right.evaluate(values)?,
            Self::Choice(test, yes, no) => match test.evaluate(values)? {
                true => yes.evaluate(values)?,
                false => no.evaluate(values)?,
            },
            Self::SameBool(left, right) => left.evaluate(values)? == right.evaluate(values)?,
            Self::CompareInts(comparison, left, right) => {
                comparison.holds(&left.evaluate(values)?, &right.evaluate(values)?)
            }
            Self::CompareTexts(comparison, left, right) => {
                comparison.holds(&left.evaluate(values)?, &right.evaluate(values)?)
            }
            Self::IntIn(number, list) => {
                let number = number.evaluate(values)?;
                let list = list.iter().map(|item| item.evaluate(values)).collect::<Result<Vec<_>, _>>()?;
                list.contains(&number)
            }
            Self::TextIn(text, list) => {
                let text = text.evaluate(values)?;
                let list = list.iter().map(|item| item.evaluate(values)).collect::<Result<Vec<_>, _>>()?;
                list.contains(&text)
            }
            Self::TextTest(test, text, part) => {
                let (text, part) = (text.evaluate(values)?, part.evaluate(values)?);
                match test {
                    TextTest::StartsWith => text.starts_with(&part),
                    TextTest::EndsWith => text.ends_with(&part),
                    TextTest::Contains => text.contains(&part),
                }
            }
            Self::Matches(text, regex) => regex.is_match(&text.evaluate(values)?),
        })
    }
}

impl Number {
    fn evaluate(&self, values: &Values) -> Result<i64, String> {
        match self {
            Self::Literal(value) => Ok(*value),
            Self::Input(name) => match values.get(name) {
                Some(Value::Int(value)) => Ok(*value),
                Some(Value::Bool(_) | Value::Text(_)) | None => Err(missing(name)),
            },
            Self::Negate(inner) => inner.evaluate(values)?.checked_neg().ok_or_else(overflow),
            Self::Arithmetic(operation, left, right) => {
                let (left, right) = (left.evaluate(values)?, right.evaluate(values)?);
                operation.apply(left, right).ok_or_else(overflow)
            }
            Self::Choice(test, yes, no) => match test.evaluate(values)? {
                true => yes.evaluate(values),
                false => no.evaluate(values),
            },
        }
    }
}

impl Words {
    fn evaluate(&self, values: &Values) -> Result<String, String> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Input(name) => match values.get(name) {
                Some(Value::Text(value)) => Ok(value.clone()),
                Some(Value::Bool(_) | Value::Int(_)) | None => Err(missing(name)),
            },
            Self::Concatenation(left, right) => Ok(left.evaluate(values)? + &right.evaluate(values)?),
            Self::Choice(test, yes, no) => match test.evaluate(values)? {
                true => yes.evaluate(values),
                false => no.evaluate(values),
            },
        }
    }
}

impl Comparison {
    fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

impl Arithmetic {
    fn apply(self, left: i64, right: i64) -> Option<i64> {
        match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => left.checked_div(right),
            Self::Modulo => left.checked_rem(right),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => fmt::Display::fmt(value, f),
            Self::Int(value) => fmt::Display::fmt(value, f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

fn missing(name: &str) -> String {
    format!("`{name}` has no value")
}

fn overflow() -> String {
    "the arithmetic overflows, or divides by zero".to_owned()
}
