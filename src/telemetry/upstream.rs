//! Facts about upstream.
