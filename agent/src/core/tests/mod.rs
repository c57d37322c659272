//! A world for the machine to act on, the rules one by one, and the invariants over random plans and crashes.

mod crashes;
mod invariants;
mod rules;
mod waits;
mod world;
