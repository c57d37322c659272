//! Generated types to domain types and back: the one place that sees both.
