//! The life of a trust root: several owners on their own machines, its end, lost and stolen keys.

mod agents;
mod expiry;
mod guide;
mod keys;
mod owners;
mod people;
