//! Attempts' output: `logs/<deployment>/<attempt>.log`, framed records as the agent has them, so that an offset means the
//! same at both ends. [`LogWriter`] makes what agents send durable before it is acknowledged.

mod files;
mod writer;

pub use files::{LogFileError, LogFiles, whole_records};
pub use writer::{Answer, Append, LogError, LogSettings, LogWriter};

/// Bytes in one message of records, up and down: enough for throughput, little enough to hold a few of.
pub const LOG_MESSAGE_BYTES: usize = 1 << 20;
