//! What may run: keys, envelopes, statements, the trust root, and the decision.
//!
//! TLS says who may talk; it never stands in for what is decided here.

pub mod authorize;
mod order;
mod refusal;
mod root;
mod statement;
mod token;
mod word;

pub use order::{Order, OrderKind};
pub use refusal::Refusal;
pub use root::{AppTrust, CoordinatorPin, Gate, GateRule, Key, RoleKeys, Scheme, TrustRoot};
pub use statement::{
    Approval, Config, Decision, DecisionAction, Enrolled, OrderingNumber, Predicate, Published, Statement,
    Subject,
};
pub use token::{InvalidToken, JoinRole, JoinToken, TrustRootPin, is_address};
pub use word::{Allowance, Privilege, ServersWord};
