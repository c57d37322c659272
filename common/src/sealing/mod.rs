//! Secrets on their way to a server (docs/formats.md, "Sealed values").
//!
//! What is signed says which value a secret has, as a salted commitment; the value itself travels unsigned beside it, in
//! an age file that only one server can open. Whoever carries it can withhold it, and that is all: another value does not
//! fit the commitment.

mod document;
mod fingerprint;
mod keys;
mod secret;

pub use document::{Given, SEALED_FORMAT, Sealed, open};
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use keys::{InvalidSealingKey, Recipient, SealingKey};
pub use secret::{InvalidSecret, SALT_BYTES, Salt, Secret, masks};

#[cfg(test)]
mod tests;
