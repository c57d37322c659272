//! What signs, in whatever form its owner keeps it: our own key files, with or without a passphrase, OpenSSH's, and keys
//! that an ssh-agent holds. Every command that signs takes its keys from here.
//!
//! | module | holds |
//! |---|---|
//! | [`signer`] | one key that signs, opened no earlier than it must be |
//! | [`name`] | how the command line names keys |
//! | [`sealed`] | key files that a passphrase protects |
//! | [`openssh`] | OpenSSH's private and public key files |
//! | [`agent`] | the ssh-agent protocol, as far as signing needs it |
//! | [`passphrase`] | where passphrases come from |

mod agent;
mod name;
mod openssh;
mod passphrase;
mod sealed;
#[allow(clippy::module_inception, reason = "the module's main type has the module's name")]
mod signer;

#[cfg(test)]
mod tests;

pub(crate) use name::{KeyName, PublicKeyName};
pub(crate) use openssh::public_line;
pub(crate) use passphrase::{Passphrase, PassphraseArgs, ask};
pub(crate) use sealed::SealedKeyFile;
pub(crate) use signer::{Signer, sign};
