//! What is wrong with a file that a person wrote, and where.

use std::{fmt, ops::Range, sync::Arc};

use miette::{Diagnostic, GraphicalReportHandler, NamedSource, SourceSpan};

/// The problems that were found, at most [`PROBLEMS`], in the order of the file. As text, one line each: `consign.toml:12:5: message`.
#[derive(Clone, Debug)]
pub struct DocumentError {
    problems: Vec<Problem>,
}

/// More of them nobody reads, and each costs a walk through the file: what comes after is not kept.
const PROBLEMS: usize = 100;

/// One problem; as a miette diagnostic it shows the lines around its place.
#[derive(Clone, Debug, Diagnostic, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    pub message: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    #[source_code]
    source_code: NamedSource<Arc<str>>,
    #[label]
    span: SourceSpan,
    #[help]
    pub help: Option<String>,
}

impl DocumentError {
    /// In the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// All problems with the lines around them, for a terminal.
    pub fn render(&self) -> String {
        let handler = GraphicalReportHandler::new();
        let mut text = String::new();
        for problem in &self.problems {
            if handler.render_report(&mut text, problem).is_err() {
                text.push_str(&problem.message);
            }
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let file = problem.source_code.name();
            write!(f, "{separator}{file}:{}:{}: {}", problem.line, problem.column, problem.message)?;
            if let Some(help) = &problem.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for DocumentError {}

/// Collects problems while a file is read, so that one mistake does not hide the next.
#[derive(Debug)]
pub struct Problems {
    file: String,
    text: Arc<str>,
    found: Vec<Problem>,
}

impl Problems {
    /// `file` is its name, for messages.
    pub fn new(file: &str, text: &str) -> Self {
        // A snippet goes to a terminal: no control character of the file may reach it. Each is one byte, as its
        // replacement, so that every span stays where it was.
        let shown: String = text
            .chars()
            .map(|c| if c.is_ascii_control() && c != '\n' && c != '\t' { '?' } else { c })
            .collect();
        Self { file: file.to_owned(), text: shown.into(), found: Vec::new() }
    }

    /// Something is wrong there.
    pub fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.add_with_help(span, message, None);
    }

    /// And what to do about it.
    pub fn add_with_help(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        if self.found.len() >= PROBLEMS {
            return;
        }
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count());
        self.found.push(Problem {
            message: message.into(),
            line: before.matches('\n').count() + 1,
            column: column + 1,
            source_code: NamedSource::new(&self.file, Arc::clone(&self.text)),
            span: span.into(),
            help,
        });
    }

    /// `value`, if nothing was wrong.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, DocumentError> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => {
                self.found.sort_by_key(|problem| (problem.line, problem.column));
                Err(DocumentError { problems: self.found })
            }
        }
    }
}
