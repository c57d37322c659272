//! A deterministic simulator that attacks consign: the coordinator's very engine (`consign_coordinator::rollout`), the
//! agent's very core (`consign_agent::core`) and the very decision (`common::trust::authorize`), with everything around
//! them played: clock, network, disks, processes, power, and people who press verbs. All that differs between two runs
//! comes from one seed; a run has no thread, no clock of the machine and no map without an order. docs/simulator.md says
//! how to run it and what it does not model.
//!
//! | module | holds | mirrors |
//! |---|---|---|
//! | `world` | one run: fleet, weather, faults, the loop, the end | |
//! | `coordinator`, `verbs`, `store` | the coordinator's thin shell, and what it keeps | `coordinator/src/rollouts` |
//! | `agent`, `deployment`, `disk` | the agent's thin shell, and what it keeps | `agent/src/{manager,executor,journal}` |
//! | `host` | what outlives an agent: processes under supervisors, power | `agent/src/supervisor` |
//! | `operator` | people | |
//! | `catalog` | plans, manifests, keys and statements, as real documents | |
//! | `queue`, `around`, `random` | what happens when; lines; chance | |
//! | `check` | the oracle | |
//! | `bug`, `engine` | planted bugs | |
//!
//! What the shells decide without a store is the product's own: `View::news`, `next_of`, `owes`, `is_active`, the orders'
//! documents, by which event an order is answered, which orders a cancel or a retry withdraws. The rest of a shell is
//! kept to its one rule: state and outbox are durable in one transaction, then one acts; a journal's event is durable
//! before the next command.
//!
//! The oracle is told what really happened (the steps' own processes write an effect log that no shell can silence, and
//! every event is noted as it becomes durable), and checks after every step:
//!
//! | invariant | checked | how |
//! |---|---|---|
//! | I1 authorised only | yes | nothing that a stranger signed is accepted, or runs |
//! | I2 write-ahead | yes | an attempt that runs is journalled as started; an agent has no order that its coordinator has not |
//! | I3 at most once | yes | an attempt runs once; a step as often as `retry` and decisions allow; a `once` step never again but by a person's word |
//! | I4 no lost step | yes | a success has an effect, a skip with its reason or a person's word for every step |
//! | I5 order | yes | a step starts when those before it are done, and nothing while a word is waited for |
//! | I6 no false verdict | yes | a server's end is what its journal says, of its newest deployment; no green with one that is not; ends are final |
//! | I7 result durability | yes | what is acknowledged is stored, in the journal's order, byte for byte; after the faults all of it is |
//! | I8 log completeness | offsets | a model of offsets, acknowledgements and resumption; the spool and its gaps are not modelled |
//! | I9 single writer | yes | one open deployment, and one process, of an app on a server |
//! | I10 monotone | yes | terms, ordering numbers; trust roots do not change in a run |
//! | I11 atomic current | yes | `current` names a release that is there; a success is what is current |
//! | I12 way back | yes | `good` and `before` are on disk; a success is good |
//! | I13 bounds | no | of memory and disks: the real processes' tests |
//! | I14 isolation | no | of the wire: the coordinator's tests of its services |
//! | I15 containment | yes | what is said to have ended does not run |
//! | I16 non-interference | no | of the workload: the tests on real hosts |
//! | I17 liveness | yes | once the faults stop all comes to rest: ended, or waiting for a word that somebody was asked for; once that is said, ended |
//! | confirm | yes | good only when confirmed, in the boot that waited |
//! | budget, waves, min-healthy | yes | counted again by the oracle at every order |
//! | paused, ended | yes | no order by a rollout that is paused, stopping, aborting or over; but for servers that converge |
//! | one-active | yes | one rollout drives an app in an environment; others only come to their end |
//! | hold | yes | nothing begins or converges by itself |

mod agent;
mod around;
mod bug;
mod catalog;
mod check;
mod coordinator;
mod deployment;
mod disk;
mod engine;
mod host;
mod hunt;
mod operator;
mod queue;
mod random;
mod report;
mod store;
mod verbs;
mod world;

pub use bug::Bug;
pub use check::Violation;
pub use hunt::{Hunt, hunt};
pub use report::{Counts, Coverage, Report};
pub use world::{Trace, run};
