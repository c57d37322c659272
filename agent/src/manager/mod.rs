//! What this server does with what it is told: orders are judged, journalled and carried out, one deployment per app at
//! a time, different apps side by side. After a restart every open deployment goes on from its journal.

mod intake;
mod overdue;
mod pump;
mod queries;
mod refusals;
mod resume;
mod run;
mod slot;

pub use overdue::{TakenBack, take_back};
pub use run::{Manager, ManagerError};
