//! Rollouts as they happen: the pure engine (`crate::rollout`) between the store, the agents and the operators.
//!
//! | module | holds |
//! |---|---|
//! | `admission` | what is refused before any server hears of it |
//! | `start`, `verbs`, `show`, `follow` | what operators ask for |
//! | `promote`, `by_settings` | candidates that begin by themselves; how, by their environment's settings |
//! | `left` | what a rollback leaves |
//! | `preview`, `absent` | what servers would do, before anything is touched; what we say for those that are away |
//! | `timeline` | when what happened on which server |
//! | `follower`, `read_logs`, `output` | the tasks that deliver states and output |
//! | `controller` | what agents say |
//! | `drive` | events in, engine, orders and changes out |
//! | `succession` | what begins by itself: the next rollout, a way back, servers that converge |
//! | `after` | what is done once that is durable |
//! | `clock`, `judge` | waking rollouts in time; asking how a wave is |
//! | `behind` | what a coordinator does that was restored from a backup |
//! | `orders`, `papers` | the documents that agents get, and the statements that go with them |
//! | `view` | agents' events, folded into what people see |
//! | `feed` | wakes followers |
//! | `rows`, `store`, `retention` | what is kept, and for how long |

mod absent;
mod admission;
mod after;
mod behind;
mod by_settings;
mod clock;
mod configured;
mod controller;
pub mod drive;
mod feed;
mod follow;
mod follower;
mod judge;
mod left;
pub mod orders;
mod output;
mod papers;
mod preview;
mod promote;
mod read_logs;
mod retention;
pub mod rows;
mod show;
mod start;
pub mod store;
pub mod succession;
#[cfg(test)]
mod tests;
mod timeline;
mod verbs;
pub mod view;

pub use absent::{Checked, all_that_is_asked};
pub use admission::NotStarted;
pub use controller::{Controller, ControllerError, Heard, NotTaken, Patience, Reported, Surroundings};
pub use feed::Feed;
pub use follow::{FollowError, Followed, LogPart, LogQuery, Output, Until, Update};
pub use preview::{Foretold, Preview, PreviewRequest};
pub use promote::Waiting;
pub use retention::KEEP;
pub use rows::{Again, Behind, Changed, DeploymentRow, HistoryRow, Hold, LogLength, Pinned, RolloutRow};
pub use show::Shown;
pub use start::{Canary, Chosen, Queueing, RollbackOf, RollbackRequest, Shorter, StartRequest};
pub use timeline::{Bar, Line, Timeline, What};
pub use view::{StepState, StepView, View};
