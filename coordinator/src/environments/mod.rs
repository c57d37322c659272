//! Environments: how a rollout goes about it there, unless it says otherwise.
//!
//! | module | holds |
//! |---|---|
//! | `settings` | what can be set, how one overrides another, and how they read |
//! | `check` | values that cannot be meant |
//! | `document` | the file that `consign env apply` takes |
//! | `store` | what was applied, by whom, when |
//!
//! The gate (who must have signed what) is not here: it stands in the trust root. This is the coordinator's own word.

mod check;
mod document;
mod settings;
pub mod store;

pub use check::{InvalidSetting, WAVES, check_command, check_url};
pub use document::{parse, span};
pub use settings::{Change, Health, Settings, changes};
pub use store::{Applied, Noted};
