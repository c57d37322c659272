//! The fleet: servers as rows (who they are and what their agents said last), and how an operator chooses among them.

mod registry;
mod selector;
mod server;
mod sessions;

pub use registry::{NewServer, Registry, RegistryError};
pub use selector::{InvalidSelector, Selector};
pub use server::{AppReport, Enablement, Report, Server};
pub use sessions::{Sent, Session, Sessions, ToAgent};
