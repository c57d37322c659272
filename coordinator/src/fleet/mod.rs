//! The fleet: servers as rows (who they are and what their agents said last), and how an operator chooses among them.

mod quarantine;
mod questions;
mod registry;
mod selector;
mod server;
mod sessions;

pub use quarantine::{Greeting, Lifted};
pub use questions::{Decision, Foreseeing, Held, Papers, Prospect, Question};
pub use registry::{NewServer, Registry, RegistryError};
pub use selector::{InvalidSelector, Selector};
pub use server::{AppReport, Enablement, JournalMark, Quarantine, Report, Server};
pub use sessions::{Claim, Entered, Lost, Occupant, Sent, Session, Sessions, Sign, ToAgent};
