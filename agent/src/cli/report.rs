//! Results and errors, for people and for programs.

use std::{
    error::Error,
    io::{self, Write as _},
};

use consign_common::{error::chain, terminal};

use super::Output;

/// One line to standard output. Whoever reads it may stop reading (`| head`): that is no error of ours.
pub(super) fn say(line: impl AsRef<str>) {
    drop(writeln!(io::stdout().lock(), "{}", line.as_ref()));
}

/// To standard error, with every cause. What a server or a file said is escaped.
pub(super) fn report(error: &dyn Error, output: Output) {
    let message = chain(error);
    match output {
        Output::Text => eprintln!("error: {}", terminal::escape(message.as_bytes())),
        Output::Json => eprintln!("{}", serde_json::json!({ "error": message })),
    }
}
