//! `consign config`: what differs between environments, signed here and sealed here. The coordinator is asked what there
//! is, and believed in nothing that matters: the plan's declarations and the config before must be signed by who may, and
//! secrets are sealed only to servers that somebody vouched for.
//!
//! | module | holds |
//! |---|---|
//! | [`commands`] | the grammar; set, unset, reseal, from arguments to what is sent |
//! | [`declared`] | the plan that says which parameters there are |
//! | [`given`] | values and secrets, as people give them |
//! | [`change`] | from the config before to the one after, and the difference |
//! | [`salts`] | what this machine must remember to seal a value again |
//! | [`send`] | signing, sealing, handing over |
//! | [`show`] | show and list |

mod change;
mod commands;
mod declared;
mod given;
mod salts;
mod send;
mod show;

pub(super) use change::shown;
pub(super) use commands::{ConfigCommand, run};
