//! A world for the machine to act on, the rules one by one, and the invariants over random plans and crashes.

mod crashes;
mod rules;
mod world;
