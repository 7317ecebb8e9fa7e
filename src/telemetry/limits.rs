//! Facts about limits.
