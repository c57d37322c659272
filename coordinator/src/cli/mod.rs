//! The operator's command line: noun, then verb.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the command line's grammar |
//! | [`run`] | from arguments to exit code |
//! | [`profile`], [`client`] | who I am, and the way to the coordinator |
//! | [`print`], [`output`], [`text`], [`failure`] | results, their JSON schema, small texts, how commands end badly |
//! | [`init`], [`trust`], [`key`] | keys and trust, made and changed on this machine |
//! | [`signer`] | what signs: key files, OpenSSH's, ssh-agent |
//! | [`artifacts`], [`candidates`], [`environments`], [`server`], [`operator`], [`rollout`], [`status`] | the nouns |
//! | [`config`], [`acceptance`] | values and secrets, and the servers that they are sealed to |
//! | [`approve`], [`signing`] | what is signed about artifacts, and with which key |
//! | [`follow`] | a rollout as it happens |

mod acceptance;
mod approve;
mod args;
mod artifacts;
mod candidates;
mod client;
mod config;
mod environments;
mod failure;
mod follow;
mod init;
mod key;
mod operator;
pub mod output;
mod print;
mod profile;
mod rollout;
mod run;
mod server;
mod signer;
mod signing;
mod status;
mod text;
mod trust;

#[cfg(test)]
mod tests;

pub use run::main;
