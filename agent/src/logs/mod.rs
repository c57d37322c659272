//! Log shipping: from attempts' log files to the coordinator, while they grow, with no gap and no double.
//!
//! An offset is a position in the attempt's file, the same at both ends. The file is the queue: the coordinator's
//! acknowledgements say where to go on, whatever happened to the line or to this process in between.

mod prune;
mod ship;
mod tail;

pub use prune::prune;
pub use ship::{ShipError, ship};
