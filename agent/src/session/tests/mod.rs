//! Against a coordinator in this process, over real TLS: what it says is scripted, what the agent does is asserted.

mod hostile;
mod identity;
mod papers;
mod shipping;
mod talk;
mod transfer;
mod world;
