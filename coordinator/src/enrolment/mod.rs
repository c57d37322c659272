//! How a machine or a person gets an identity: a single-use token against a certificate, and later a new key for an
//! old one. The CA's private key is used here and nowhere else.

mod authority;
mod service;
mod tokens;

pub use authority::{Authority, AuthorityError, Issued, SERVER_RENEWS, ServerConfigs};

pub use service::{Enroller, refused};
pub use tokens::{CreatedToken, Grant, NewToken, Token, TokenRefusal, Tokens};
