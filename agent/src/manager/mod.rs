//! What this server does with what it is told: orders are judged, journalled and carried out, one deployment per app at
//! a time, different apps side by side. After a restart every open deployment goes on from its journal.

mod intake;
mod pump;
mod resume;
mod run;

pub use run::{Manager, ManagerError};
