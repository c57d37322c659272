//! Errors for people and for programs.

use std::error::Error;

use consign_common::terminal;

use super::Output;

/// To standard error, with every cause. What a server or a file said is escaped.
pub(super) fn report(error: &dyn Error, output: Output) {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let text = source.to_string();
        // Some errors hold the text of their source already.
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = source.source();
    }
    match output {
        Output::Text => eprintln!("error: {}", terminal::escape(message.as_bytes())),
        Output::Json => eprintln!("{}", serde_json::json!({ "error": message })),
    }
}
