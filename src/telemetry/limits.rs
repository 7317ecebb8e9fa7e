//! Facts about limits.
pub fn refused(l: crate::limits::LimitName) {}
