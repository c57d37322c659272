//! From CEL's syntax tree to typed expressions: names, arity and operand types are checked here.

use std::{collections::BTreeMap, ops::Range};

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, ListExpr, LiteralValue, SelectExpr, SourceInfo, operators},
};

use super::{
    InvalidCondition, Names,
    expression::{Arithmetic, Comparison, Number, Predicate, TextTest, Words},
    facts::{HostFact, Input},
};
use crate::{
    document::did_you_mean,
    plan::{ParamType, changes, rules},
};

/// An expression of one of the types there are.
#[derive(Debug)]
enum Typed {
    Bool(Predicate),
    Int(Number),
    Text(Words),
    Ints(Vec<Number>),
    Texts(Vec<Words>),
    /// `server.labels`
    Labels,
}

impl Typed {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Text(_) => "string",
            Self::Ints(_) => "list of int",
            Self::Texts(_) => "list of string",
            Self::Labels => "map of labels",
        }
    }
}

/// The error was reported already.
#[derive(Debug)]
struct Reported;

struct Lowering<'a> {
    source: &'a SourceInfo,
    names: &'a Names<'a>,
    inputs: BTreeMap<String, Input>,
    errors: Vec<InvalidCondition>,
}

pub(super) fn condition(
    tree: &IdedExpr,
    source: &SourceInfo,
    names: &Names<'_>,
) -> Result<(Predicate, BTreeMap<String, Input>), Vec<InvalidCondition>> {
    let mut lowering = Lowering { source, names, inputs: BTreeMap::new(), errors: Vec::new() };
    match lowering.boolean(tree, "when") {
        Ok(predicate) if lowering.errors.is_empty() => Ok((predicate, lowering.inputs)),
        Ok(_) | Err(Reported) => Err(lowering.errors),
    }
}

impl Lowering<'_> {
    fn expression(&mut self, node: &IdedExpr) -> Result<Typed, Reported> {
        match &node.expr {
            Expr::Literal(literal) => self.literal(node, literal),
            Expr::Ident(_) | Expr::Select(_) => self.name(node),
            Expr::Call(call) => self.call(node, call),
            Expr::List(list) => self.list(node, list),
            Expr::Comprehension(_) => {
                self.refuse(node, "conditions have no loops (`all`, `exists`, `map`, ...)")
            }
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                self.refuse(node, "conditions have no maps and no messages")
            }
        }
    }

    fn literal(&mut self, node: &IdedExpr, literal: &LiteralValue) -> Result<Typed, Reported> {
        match literal {
            LiteralValue::Boolean(value) => Ok(Typed::Bool(Predicate::Literal(*value.inner()))),
            LiteralValue::Int(value) => Ok(Typed::Int(Number::Literal(*value.inner()))),
            LiteralValue::String(value) => Ok(Typed::Text(Words::Literal(value.inner().to_owned()))),
            LiteralValue::Bytes(_) | LiteralValue::Double(_) | LiteralValue::Null | LiteralValue::UInt(_) => {
                self.refuse(node, "a literal is true, false, an integer or a string")
            }
        }
    }

    /// `first_deploy`, `facts.os`, `params.workers`, `has(server.labels.role)`
    fn name(&mut self, node: &IdedExpr) -> Result<Typed, Reported> {
        let test = matches!(&node.expr, Expr::Select(SelectExpr { test: true, .. }));
        let Some(path) = dotted(node) else {
            return self.refuse(node, "`.` follows a name");
        };
        let written = path.join(".");
        if test {
            return match path.as_slice() {
                ["server", "labels", label] => Ok(self.has_label(label)),
                _ => self.refuse(node, "`has()` takes a label: has(server.labels.role)"),
            };
        }
        let input = match path.as_slice() {
            ["first_deploy"] => Input::FirstDeploy,
            ["previous", "version"] => Input::PreviousVersion,
            ["artifact", "version"] => Input::ArtifactVersion,
            ["environment"] => Input::Environment,
            ["server", "name"] => Input::ServerName,
            ["server", "labels"] => return Ok(Typed::Labels),
            ["server", "labels", label] => Input::Label((*label).to_owned()),
            ["facts", "os"] => Input::Host(HostFact::Os),
            ["facts", "arch"] => Input::Host(HostFact::Arch),
            ["facts", "kernel"] => Input::Host(HostFact::Kernel),
            ["facts", "cpus"] => Input::Host(HostFact::Cpus),
            ["facts", "memory"] => Input::Host(HostFact::Memory),
            ["params", name] => self.param(node, name)?,
            ["steps", step, "outcome"] => self.outcome(node, step)?,
            _ => return self.unknown_name(node, &written),
        };
        Ok(self.input(written, input))
    }

    fn param(&mut self, node: &IdedExpr, name: &str) -> Result<Input, Reported> {
        let Some((name, param)) = self.names.params.get_key_value(name) else {
            let known: Vec<&str> = self.names.params.keys().map(|known| known.as_str()).collect();
            let help = did_you_mean(name, known);
            return self.refuse_with_help(node, format!("the plan has no parameter `{name}`"), help);
        };
        if param.secret {
            return self.refuse(node, format!("`{name}` is secret, and what a condition names is recorded"));
        }
        Ok(Input::Param { name: name.clone(), kind: param.kind })
    }

    fn outcome(&mut self, node: &IdedExpr, step: &str) -> Result<Input, Reported> {
        match self.names.steps.iter().find(|known| known.as_str() == step) {
            Some(step) => Ok(Input::Outcome(step.clone())),
            None => {
                let help = did_you_mean(step, self.names.steps.iter().map(|known| known.as_str()));
                self.refuse_with_help(node, format!("no earlier step is called `{step}`"), help)
            }
        }
    }

    fn unknown_name<T>(&mut self, node: &IdedExpr, written: &str) -> Result<T, Reported> {
        const KNOWN: [&str; 11] = [
            "first_deploy",
            "previous.version",
            "artifact.version",
            "environment",
            "server.name",
            "server.labels",
            "facts.os",
            "facts.arch",
            "facts.kernel",
            "facts.cpus",
            "facts.memory",
        ];
        let help = did_you_mean(written, KNOWN)
            .unwrap_or_else(|| format!("there are {}, params.NAME and steps.NAME.outcome", KNOWN.join(", ")));
        self.refuse_with_help(node, format!("unknown name `{written}`"), Some(help))
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Typed, Reported> {
        if let Some(target) = &call.target {
            return self.method(node, call, target);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("changed", [glob]) => self.changed(glob),
            ("exists", [path]) => self.exists(path),
            (name @ ("changed" | "exists"), args) => {
                self.refuse(node, format!("`{name}` takes one argument, not {}", args.len()))
            }
            (operators::LOGICAL_NOT, [inner]) => {
                let inner = self.boolean(inner, "!")?;
                Ok(Typed::Bool(Predicate::Not(Box::new(inner))))
            }
            (operators::NEGATE, [inner]) => {
                let typed = self.expression(inner)?;
                let found = typed.type_name();
                let Typed::Int(number) = typed else {
                    return self.refuse(node, format!("`-` does not apply to {found}"));
                };
                Ok(Typed::Int(Number::Negate(Box::new(number))))
            }
            (operators::LOGICAL_AND, [left, right]) => {
                let (left, right) = (self.boolean(left, "&&"), self.boolean(right, "&&"));
                Ok(Typed::Bool(Predicate::And(Box::new(left?), Box::new(right?))))
            }
            (operators::LOGICAL_OR, [left, right]) => {
                let (left, right) = (self.boolean(left, "||"), self.boolean(right, "||"));
                Ok(Typed::Bool(Predicate::Or(Box::new(left?), Box::new(right?))))
            }
            (operators::CONDITIONAL, [test, yes, no]) => self.choice(node, test, yes, no),
            (operators::IN, [item, list]) => self.contained(node, item, list),
            (operators::INDEX, [map, key]) => self.index(node, map, key),
            (operator, [left, right]) if comparison(operator).is_some() || arithmetic(operator).is_some() => {
                self.binary(node, operator, left, right)
            }
            (name, _) => {
                let help = did_you_mean(name, ["changed", "exists", "has"]);
                self.refuse_with_help(node, format!("unknown function `{name}`"), help)
            }
        }
    }

    fn method(&mut self, node: &IdedExpr, call: &CallExpr, target: &IdedExpr) -> Result<Typed, Reported> {
        let name = call.func_name.as_str();
        let test = match name {
            "startsWith" => Some(TextTest::StartsWith),
            "endsWith" => Some(TextTest::EndsWith),
            "contains" => Some(TextTest::Contains),
            "matches" => None,
            _ => {
                let help = did_you_mean(name, ["startsWith", "endsWith", "contains", "matches"]);
                return self.refuse_with_help(node, format!("unknown function `{name}`"), help);
            }
        };
        let [argument] = call.args.as_slice() else {
            return self.refuse(node, format!("`{name}` takes one argument, not {}", call.args.len()));
        };
        let target = self.text(target, name)?;
        if let Some(test) = test {
            return Ok(Typed::Bool(Predicate::TextTest(test, target, self.text(argument, name)?)));
        }
        let pattern = self.literal_text(argument, name)?;
        match rules::bounded(&pattern) {
            Ok(regex) => Ok(Typed::Bool(Predicate::Matches(target, regex))),
            Err(_) => self.refuse(argument, "not a regular expression, or a too large one"),
        }
    }

    fn changed(&mut self, argument: &IdedExpr) -> Result<Typed, Reported> {
        let pattern = self.literal_text(argument, "changed")?;
        if let Err(why) = rules::relative_path(&pattern) {
            return self.refuse(argument, format!("the glob of `changed` {why}"));
        }
        match changes::glob(&pattern) {
            Ok(glob) => Ok(self.input(format!("changed('{pattern}')"), Input::Changed { glob })),
            Err(error) => self.refuse(argument, format!("not a glob: {}", error.kind())),
        }
    }

    fn exists(&mut self, argument: &IdedExpr) -> Result<Typed, Reported> {
        let path = self.literal_text(argument, "exists")?;
        if let Err(why) = rules::relative_path(path.strip_prefix('/').unwrap_or(&path)) {
            return self.refuse(argument, format!("the path of `exists` {why}"));
        }
        Ok(self.input(format!("exists('{path}')"), Input::Exists(path)))
    }

    fn has_label(&mut self, label: &str) -> Typed {
        self.input(format!("has(server.labels.{label})"), Input::HasLabel(label.to_owned()))
    }

    fn list(&mut self, node: &IdedExpr, list: &ListExpr) -> Result<Typed, Reported> {
        let mut ints = Vec::new();
        let mut texts = Vec::new();
        for item in &list.elements {
            let typed = self.expression(item)?;
            let found = typed.type_name();
            if let Typed::Int(number) = typed {
                ints.push(number);
            } else if let Typed::Text(text) = typed {
                texts.push(text);
            } else {
                return self.refuse(item, format!("a list holds strings or ints, not {found}"));
            }
        }
        match (ints.is_empty(), texts.is_empty()) {
            (true, false) => Ok(Typed::Texts(texts)),
            (false, true) => Ok(Typed::Ints(ints)),
            (true, true) => self.refuse(node, "an empty list contains nothing"),
            (false, false) => self.refuse(node, "a list holds strings or ints, not both"),
        }
    }

    /// `a in b`
    fn contained(&mut self, node: &IdedExpr, item: &IdedExpr, list: &IdedExpr) -> Result<Typed, Reported> {
        if dotted(list).is_some_and(|path| path == ["server", "labels"]) {
            let label = self.literal_text(item, "in")?;
            return Ok(self.has_label(&label));
        }
        let (item, list) = (self.expression(item), self.expression(list));
        match (item?, list?) {
            (Typed::Int(item), Typed::Ints(list)) => Ok(Typed::Bool(Predicate::IntIn(item, list))),
            (Typed::Text(item), Typed::Texts(list)) => Ok(Typed::Bool(Predicate::TextIn(item, list))),
            (item, list) => {
                let message = format!("`in` does not apply to {} and {}", item.type_name(), list.type_name());
                self.refuse(node, message)
            }
        }
    }

    /// `server.labels['role']`
    fn index(&mut self, node: &IdedExpr, map: &IdedExpr, key: &IdedExpr) -> Result<Typed, Reported> {
        if dotted(map).is_none_or(|path| path != ["server", "labels"]) {
            return self.refuse(node, "`[...]` takes a label: server.labels['role']");
        }
        let label = self.literal_text(key, "[...]")?;
        Ok(self.input(format!("server.labels.{label}"), Input::Label(label)))
    }

    fn choice(
        &mut self,
        node: &IdedExpr,
        test: &IdedExpr,
        yes: &IdedExpr,
        no: &IdedExpr,
    ) -> Result<Typed, Reported> {
        let (test, yes, no) = (self.boolean(test, "?:"), self.expression(yes), self.expression(no));
        let test = Box::new(test?);
        match (yes?, no?) {
            (Typed::Bool(yes), Typed::Bool(no)) => {
                Ok(Typed::Bool(Predicate::Choice(test, Box::new(yes), Box::new(no))))
            }
            (Typed::Int(yes), Typed::Int(no)) => {
                Ok(Typed::Int(Number::Choice(test, Box::new(yes), Box::new(no))))
            }
            (Typed::Text(yes), Typed::Text(no)) => {
                Ok(Typed::Text(Words::Choice(test, Box::new(yes), Box::new(no))))
            }
            (yes, no) => {
                let message = format!(
                    "both sides of `:` are of one type, not {} and {}",
                    yes.type_name(),
                    no.type_name()
                );
                self.refuse(node, message)
            }
        }
    }

    fn binary(
        &mut self,
        node: &IdedExpr,
        operator: &str,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Typed, Reported> {
        let (left, right) = (self.expression(left), self.expression(right));
        let (left, right) = (left?, right?);
        let types = (left.type_name(), right.type_name());
        match (comparison(operator), arithmetic(operator), left, right) {
            (Some(comparison), _, Typed::Int(left), Typed::Int(right)) => {
                Ok(Typed::Bool(Predicate::CompareInts(comparison, left, right)))
            }
            (Some(comparison), _, Typed::Text(left), Typed::Text(right)) => {
                Ok(Typed::Bool(Predicate::CompareTexts(comparison, left, right)))
            }
            (Some(Comparison::Equal), _, Typed::Bool(left), Typed::Bool(right)) => {
                Ok(Typed::Bool(Predicate::SameBool(Box::new(left), Box::new(right))))
            }
            (Some(Comparison::NotEqual), _, Typed::Bool(left), Typed::Bool(right)) => {
                let same = Predicate::SameBool(Box::new(left), Box::new(right));
                Ok(Typed::Bool(Predicate::Not(Box::new(same))))
            }
            (_, Some(operation), Typed::Int(left), Typed::Int(right)) => {
                Ok(Typed::Int(Number::Arithmetic(operation, Box::new(left), Box::new(right))))
            }
            (_, Some(Arithmetic::Add), Typed::Text(left), Typed::Text(right)) => {
                Ok(Typed::Text(Words::Concatenation(Box::new(left), Box::new(right))))
            }
            _ => {
                let sign = operator.trim_matches('_');
                self.refuse(node, format!("`{sign}` does not apply to {} and {}", types.0, types.1))
            }
        }
    }

    fn boolean(&mut self, node: &IdedExpr, operator: &str) -> Result<Predicate, Reported> {
        let typed = self.expression(node)?;
        let found = typed.type_name();
        let Typed::Bool(predicate) = typed else {
            return self.refuse(node, format!("`{operator}` takes bool, not {found}"));
        };
        Ok(predicate)
    }

    fn text(&mut self, node: &IdedExpr, function: &str) -> Result<Words, Reported> {
        let typed = self.expression(node)?;
        let found = typed.type_name();
        let Typed::Text(text) = typed else {
            return self.refuse(node, format!("`{function}` takes string, not {found}"));
        };
        Ok(text)
    }

    /// A string that stands in the plan itself, so that what is asked is known before anything runs.
    fn literal_text(&mut self, node: &IdedExpr, function: &str) -> Result<String, Reported> {
        let Expr::Literal(LiteralValue::String(text)) = &node.expr else {
            return self.refuse(node, format!("`{function}` takes a string literal"));
        };
        Ok(text.inner().to_owned())
    }

    fn input(&mut self, written: String, input: Input) -> Typed {
        let typed = match &input {
            Input::Changed { .. } | Input::Exists(_) | Input::FirstDeploy | Input::HasLabel(_) => {
                Typed::Bool(Predicate::Input(written.clone()))
            }
            Input::PreviousVersion
            | Input::ArtifactVersion
            | Input::Environment
            | Input::ServerName
            | Input::Label(_)
            | Input::Host(HostFact::Os | HostFact::Arch | HostFact::Kernel)
            | Input::Outcome(_) => Typed::Text(Words::Input(written.clone())),
            Input::Host(HostFact::Cpus | HostFact::Memory) => Typed::Int(Number::Input(written.clone())),
            Input::Param { kind, .. } => match kind {
                ParamType::String => Typed::Text(Words::Input(written.clone())),
                ParamType::Int => Typed::Int(Number::Input(written.clone())),
                ParamType::Bool => Typed::Bool(Predicate::Input(written.clone())),
            },
        };
        self.inputs.insert(written, input);
        typed
    }

    fn refuse<T>(&mut self, node: &IdedExpr, message: impl Into<String>) -> Result<T, Reported> {
        self.refuse_with_help(node, message, None)
    }

    fn refuse_with_help<T>(
        &mut self,
        node: &IdedExpr,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Result<T, Reported> {
        let span = self.span(node);
        self.errors.push(InvalidCondition { span, message: message.into(), help });
        Err(Reported)
    }

    /// From the first character of the node to the last that the parser tells of.
    fn span(&self, node: &IdedExpr) -> Range<usize> {
        let text = self.source.source.as_str();
        let start = text.floor_char_boundary(self.first(node));
        let (_, last) = self.source.offset_for(node.id).unwrap_or_default();
        let end = usize::try_from(last).unwrap_or_default().saturating_add(1);
        start..text.ceil_char_boundary(end.min(text.len())).max(start)
    }

    /// The parser places an operator, a `.` or a `(`; people look for where the expression begins.
    fn first(&self, node: &IdedExpr) -> usize {
        let own = self.source.offset_for(node.id).map_or(usize::MAX, |(start, _)| {
            usize::try_from(start).unwrap_or_default().min(self.source.source.len())
        });
        match &node.expr {
            Expr::Select(select) => own.min(self.first(&select.operand)),
            Expr::Call(call) => {
                let target = call.target.as_ref().map(|target| self.first(target));
                let argument = call.args.first().map(|argument| self.first(argument));
                let before = self.source.source.get(..own).unwrap_or_default();
                let name = before.strip_suffix(call.func_name.as_str()).map(str::len);
                [target, argument, name].into_iter().flatten().fold(own, usize::min)
            }
            Expr::Comprehension(comprehension) => own.min(self.first(&comprehension.iter_range)),
            Expr::Ident(_)
            | Expr::List(_)
            | Expr::Literal(_)
            | Expr::Map(_)
            | Expr::Struct(_)
            | Expr::Unspecified => own,
        }
    }
}

fn dotted(node: &IdedExpr) -> Option<Vec<&str>> {
    match &node.expr {
        Expr::Ident(name) => Some(vec![name]),
        Expr::Select(select) => {
            let mut path = dotted(&select.operand)?;
            path.push(&select.field);
            Some(path)
        }
        Expr::Call(_)
        | Expr::Comprehension(_)
        | Expr::List(_)
        | Expr::Literal(_)
        | Expr::Map(_)
        | Expr::Struct(_)
        | Expr::Unspecified => None,
    }
}

fn comparison(operator: &str) -> Option<Comparison> {
    match operator {
        operators::EQUALS => Some(Comparison::Equal),
        operators::NOT_EQUALS => Some(Comparison::NotEqual),
        operators::LESS => Some(Comparison::Less),
        operators::LESS_EQUALS => Some(Comparison::LessOrEqual),
        operators::GREATER => Some(Comparison::Greater),
        operators::GREATER_EQUALS => Some(Comparison::GreaterOrEqual),
        _ => None,
    }
}

fn arithmetic(operator: &str) -> Option<Arithmetic> {
    match operator {
        operators::ADD => Some(Arithmetic::Add),
        operators::SUBSTRACT => Some(Arithmetic::Subtract),
        operators::MULTIPLY => Some(Arithmetic::Multiply),
        operators::DIVIDE => Some(Arithmetic::Divide),
        operators::MODULO => Some(Arithmetic::Modulo),
        _ => None,
    }
}
