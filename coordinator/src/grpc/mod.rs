//! The network: listeners, who calls, what they may call, and the services behind.

mod caller;

pub use caller::{Caller, Identity, InvalidRole, Role};
