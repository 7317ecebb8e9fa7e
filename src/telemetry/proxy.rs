//! Facts about proxy.
