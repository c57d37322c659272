//! Webhooks: other programs are told of rollouts, and of gates that wait. What happens and that somebody is to be told
//! become durable together; the telling comes after, and keeps nothing waiting.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the file that `consign serve --webhooks` takes |
//! | [`event`] | what can happen, and the body that tells it |
//! | [`store`] | the queue |
//! | [`sign`] | how a receiver knows that it is us |
//! | [`deliver`] | one try, and when the next one comes |

mod config;
mod deliver;
mod event;
mod sign;
pub mod store;

pub use config::{Wanted, Webhook, WebhookError, parse, read};
pub use deliver::{Deliverer, Pace};
pub use event::{Event, EventKind, Told};
pub use sign::{Secret, signature};
pub use store::emit;
