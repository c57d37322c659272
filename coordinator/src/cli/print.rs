//! Where results go: stdout for what was asked, stderr for words about it. `--output json` decides once, here.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    failure::{Exit, Failure, Result},
    output,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For scripts: a stable schema.
    Json,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// The result: as text, or as one JSON document.
    pub(crate) fn show<T: Serialize>(&self, result: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        match self.format {
            Format::Text => self.raw(&text(result)),
            Format::Json => self.raw(&format!("{}\n", json(serde_json::to_string_pretty(result))?)),
        }
    }

    pub(crate) fn json_line<T: Serialize>(&self, line: &T) -> Result<()> {
        self.raw(&format!("{}\n", json(serde_json::to_string(line))?))
    }

    pub(crate) fn line(&self, line: &str) -> Result<()> {
        self.raw(&format!("{line}\n"))
    }

    /// Text whose foreign parts were escaped already.
    pub(crate) fn raw(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
            let failure = Failure::new(format!("failed to write to stdout: {error}"));
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Failure { exit: Exit::Unread, ..failure };
            }
            failure
        })
    }

    /// A word to a person, whatever the format of the result.
    pub(crate) fn note(&self, text: &str) -> Result<()> {
        // Nobody can be told that stderr is gone, and the work goes on without it.
        drop(writeln!(io::stderr().lock(), "consign: {text}"));
        Ok(())
    }

    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.exit == Exit::Unread {
            return;
        }
        let text = match self.format {
            Format::Text => format!("consign: {failure}"),
            Format::Json => {
                let (error, next) = (failure.what.as_str(), failure.next.as_deref());
                let document = output::Error { error, next, exit_code: failure.exit.code() };
                serde_json::to_string(&document).unwrap_or_else(|_| failure.to_string())
            }
        };
        drop(writeln!(io::stderr().lock(), "{text}"));
    }
}

fn json(text: serde_json::Result<String>) -> Result<String> {
    text.map_err(|error| Failure::new(format!("failed to encode the result: {error}")))
}
