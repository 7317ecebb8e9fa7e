//! Facts about connections.
