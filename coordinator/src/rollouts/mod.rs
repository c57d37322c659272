//! Rollouts as they happen: the pure engine (`crate::rollout`) between the store, the agents and the operators.
//!
//! | module | holds |
//! |---|---|
//! | `admission` | what is refused before any server hears of it |
//! | `start`, `show`, `follow` | what operators ask for |
//! | `follower`, `read_logs`, `output` | the tasks that deliver states and output |
//! | `controller` | events in, engine, orders and changes out |
//! | `after` | what is done once that is durable |
//! | `behind` | what a coordinator does that was restored from a backup |
//! | `orders` | the documents that agents get |
//! | `view` | agents' events, folded into what people see |
//! | `feed` | wakes followers |
//! | `rows`, `store`, `retention` | what is kept, and for how long |

mod admission;
mod after;
mod behind;
mod controller;
mod feed;
mod follow;
mod follower;
mod orders;
mod output;
mod read_logs;
mod retention;
pub mod rows;
mod show;
mod start;
pub mod store;
#[cfg(test)]
mod tests;
mod view;

pub use admission::NotStarted;
pub use controller::{Controller, ControllerError, Heard, NotTaken, Patience, Reported, Surroundings};
pub use feed::Feed;
pub use follow::{FollowError, Followed, LogPart, LogQuery, Output, Until, Update};
pub use retention::KEEP;
pub use rows::{Again, Behind, Changed, DeploymentRow, LogLength, RolloutRow};
pub use show::Shown;
pub use start::{RollbackOf, RollbackRequest, StartRequest};
pub use view::{StepState, StepView, View};
