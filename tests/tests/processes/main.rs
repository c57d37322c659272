//! The suite of real processes on one machine: a coordinator, agents, and an operator at the command line. The tests of
//! full disks mount small filesystems and need root; they fail without, and say so.

#![expect(clippy::unwrap_used, reason = "test code: a panic is how a test says that it failed")]

mod audit;
mod bad_input;
mod balancers;
mod cases;
mod ci;
mod clones;
mod config;
mod crash_points;
mod evil;
mod gates;
mod interop;
mod kill;
mod kill_loops;
mod latency;
mod patient;
mod pipelines;
mod plans;
mod random;
mod restored;
mod roles;
mod rollouts;
mod scene;
mod swapped;
mod trust;
