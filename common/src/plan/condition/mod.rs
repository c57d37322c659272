//! Conditions of steps: a documented subset of CEL (docs/formats.md, "conditions").
//!
//! The text is parsed by the `cel` crate, so that what is written is CEL and nothing near it. The syntax tree is then
//! lowered into typed expressions of our own ([`expression`]). That is where names, arity and operand types are checked,
//! and why evaluation later can neither meet a wrong type nor run for long: there is no loop, no recursion and no
//! function in the subset whose cost is more than its input.
//!
//! Evaluation takes [`Facts`]: the caller looks the world up first ([`Condition::paths`] says which files are asked for),
//! so that this code stays pure. All that an expression names is recorded, whether or not its value decided.

mod expression;
mod facts;
pub(crate) mod guard;
mod lower;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
};

use cel::parser::Parser;
pub use facts::{Facts, HostFacts};

use self::{
    expression::{Predicate, Values},
    facts::Input,
};
use super::model::Param;
use crate::name::StepName;

/// A `when`, checked.
#[derive(Clone)]
pub struct Condition {
    text: String,
    predicate: Predicate,
    inputs: BTreeMap<String, Input>,
}

/// What a condition may name beyond what every plan has.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    pub params: &'a BTreeMap<StepName, Param>,
    /// The steps before this one.
    pub steps: &'a [StepName],
}

/// What a condition came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    pub value: bool,
    /// All that the expression names, as text: `changed('migrations/**')` to `false`.
    pub inputs: BTreeMap<String, String>,
}

/// What is wrong with a condition, and at which bytes of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCondition {
    pub span: Range<usize>,
    pub message: String,
    pub help: Option<String>,
}

impl Condition {
    /// Parses and checks. Several problems come at once where one does not follow from another.
    pub fn compile(text: &str, names: &Names<'_>) -> Result<Self, Vec<InvalidCondition>> {
        guard::check(text).map_err(|problem| vec![problem])?;
        let parser = Parser::new().max_recursion_depth(guard::DEPTH);
        let (tree, source) = parser.parse_with_source_info(text).map_err(|errors| syntax(text, &errors))?;
        let (predicate, inputs) = lower::condition(&tree, &source, names)?;
        Ok(Self { text: text.to_owned(), predicate, inputs })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The paths that `exists()` asks for: [`Facts::exists`] must have each.
    pub fn paths(&self) -> BTreeSet<&str> {
        self.inputs
            .values()
            .filter_map(|input| match input {
                Input::Exists(path) => Some(path.as_str()),
                Input::Changed { .. }
                | Input::FirstDeploy
                | Input::PreviousVersion
                | Input::ArtifactVersion
                | Input::Environment
                | Input::ServerName
                | Input::Label(_)
                | Input::HasLabel(_)
                | Input::Host(_)
                | Input::Param { .. }
                | Input::Outcome(_) => None,
            })
            .collect()
    }

    /// What it names that is not known before the deployment comes to its step: outcomes of earlier steps, and files,
    /// which they may make. Empty: it can be foreseen.
    pub fn unforeseeable(&self) -> Vec<&str> {
        let named = self.inputs.iter().filter(|(_, input)| match input {
            Input::Exists(_) | Input::Outcome(_) => true,
            Input::Changed { .. }
            | Input::FirstDeploy
            | Input::PreviousVersion
            | Input::ArtifactVersion
            | Input::Environment
            | Input::ServerName
            | Input::Label(_)
            | Input::HasLabel(_)
            | Input::Host(_)
            | Input::Param { .. } => false,
        });
        named.map(|(name, _)| name.as_str()).collect()
    }

    /// Fails where a fact is missing, or arithmetic overflows.
    pub fn evaluate(&self, facts: &Facts) -> Result<Evaluation, String> {
        let mut values = Values::new();
        let mut inputs = BTreeMap::new();
        for (name, input) in &self.inputs {
            let value = facts.value(input)?;
            inputs.insert(name.clone(), value.to_string());
            values.insert(name.clone(), value);
        }
        Ok(Evaluation { value: self.predicate.evaluate(&values)?, inputs })
    }
}

/// Two conditions are one where their text is: what it lowers to depends on nothing that differs within a plan.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The parser's first error; those after it are usually its echo.
fn syntax(text: &str, errors: &cel::ParseErrors) -> Vec<InvalidCondition> {
    let (at, message) = errors.errors.first().map_or((0, "it cannot be parsed"), |error| {
        let line = usize::try_from(error.pos.0).unwrap_or(1).saturating_sub(1);
        let column = usize::try_from(error.pos.1).unwrap_or(1).saturating_sub(1);
        let line_start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
        (line_start + column, error.msg.as_str())
    });
    let start = text.floor_char_boundary(at.min(text.len()));
    vec![InvalidCondition {
        span: start..start,
        message: format!("not CEL: {}", guard::one_line(message)),
        help: None,
    }]
}

#[cfg(test)]
mod tests;
