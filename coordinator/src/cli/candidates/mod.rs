//! `consign candidate`: what begins by itself next, what it waits for, and how a person says no or yes.

mod commands;
mod text;

pub(super) use commands::{CandidateCommand, run};
pub(super) use text::{because, table_of};
