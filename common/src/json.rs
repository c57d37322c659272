//! Strict JSON: one way to read our own documents.
