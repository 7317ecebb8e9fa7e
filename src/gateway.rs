//! Composition root: binds, builds, runs and drains everything.
