//! Facts about tokens.
