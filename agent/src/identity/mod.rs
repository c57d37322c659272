//! Who this server is, and whom it believes: enrolment, renewal, the chain of trust roots.

pub mod enroll;
pub mod renew;
pub mod roots;
pub mod sealing;

pub use roots::TrustRoots;
