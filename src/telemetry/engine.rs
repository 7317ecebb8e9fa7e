//! Facts about engine.
