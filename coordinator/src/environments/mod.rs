//! Environments: how a rollout goes about it there, unless it says otherwise.
//!
//! | module | holds |
//! |---|---|
//! | `settings` | what can be set, how one overrides another, and how they read |
//! | `automation`, `freeze` | what begins by itself there; windows in which nothing does |
//! | `check` | values that cannot be meant |
//! | `document` | the file that `consign env apply` takes |
//! | `store` | what was applied, by whom, when |
//!
//! The gate (who must have signed what) is not here: it stands in the trust root. This is the coordinator's own word.

mod automation;
mod check;
mod document;
mod freeze;
mod settings;
pub mod store;

pub use automation::{Automation, Deploy, InvalidDeploy, Keep};
pub use check::{InvalidSetting, WAVES, check_command, check_url};
pub use document::{Known, parse, parse_among, span};
pub use freeze::{Freeze, InvalidFreeze, Misplaced, Window, frozen_until};
pub use settings::{Change, Health, Settings, changes};
pub use store::{Applied, Noted};
