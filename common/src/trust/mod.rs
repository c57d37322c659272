//! What may run: keys, envelopes, statements, the trust root, and the decision.
//!
//! TLS says who may talk; it never stands in for what is decided here.

pub mod authorize;
pub mod condition;
mod envelope;
pub mod evidence;
pub mod gate;
mod host_rules;
mod key;
mod matching;
mod order;
mod plan_document;
mod receipt;
mod refusal;
pub mod review;
mod root;
pub mod sshsig;
mod statement;
mod token;
mod vouched;
mod word;

pub use envelope::{Envelope, STATEMENT_TYPE, Signature, TRUST_ROOT_TYPE, TRUST_ROOT_V2_TYPE, pae};
pub use key::{InvalidKey, KEY_FILE_FORMAT, KeyFile, KeyFileError, PublicKey, SigningKey};
pub use order::{Foreseen, ORDER_FORMAT, OnceWord, Order, OrderKind};
pub use plan_document::{PlanDocument, Planned, PlannedStep};
pub use receipt::{RECEIPT_FORMAT, Receipt, StepReceipt};
pub use refusal::Refusal;
pub use root::{AppTrust, CoordinatorPin, Gate, GateRule, Key, RoleKeys, Scheme, Separation, TrustRoot};
pub use statement::{
    APPROVAL, Approval, CONFIG, Commitment, Config, ConfigValue, DECISION, Decision, DecisionAction,
    ENROLLED, Enrolled, OrderingNumber, PUBLISHED, Predicate, Published, Statement, Subject,
};
pub use token::{InvalidToken, JoinRole, JoinToken, TrustRootPin, is_address};
pub use vouched::{Vouched, claimed_server, open_config, open_enrolled, values_digest};
pub use word::{Allowance, Privilege, ServersWord};
