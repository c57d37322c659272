//! Following a rollout. Pure from event to line; only [`run`] knows the network and the terminal.
//!
//! `events` → [`view`] (what is the case, and what has changed) → [`plain`], [`live`] or JSON lines → screen.

mod live;
mod logs;
mod plain;
mod result;
mod run;
mod view;

#[cfg(test)]
mod tests;

pub(super) use logs::{Output, Outputs, Part};
pub(super) use plain::line_of_output;
pub(super) use result::{result_line, result_servers, result_table};
pub(super) use run::{columns, follow, json_of_record};
