//! Facts about delivery.
