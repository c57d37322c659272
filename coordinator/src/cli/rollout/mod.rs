//! `consign rollout`: bring an artifact to an environment, see it happen, stop it, go back.

mod at;
mod check;
mod commands;
mod decision;
mod history;
mod logs;
mod plan;
mod resolve;
mod show;
mod start;
mod timeline;
mod verbs;

pub(super) use commands::{RolloutCommand, run, started};
pub(super) use history::happenings;
pub(super) use plan::groups;
