//! Facts about the process itself.

use super::definitions::{Values, metrics};

metrics! {
    /// 1, with what runs here.
    BUILD_INFO = gauge "tidegate_build_info" [
        version: Values::Fixed("the version of the package"),
        build: Values::Fixed("what the packager called it, say a commit"),
        rust: Values::Fixed("the compiler"),
    ];
}

/// The process begins to count.
pub(super) fn started() {
    let build = option_env!("TIDEGATE_BUILD").unwrap_or("unknown");
    BUILD_INFO.at([env!("CARGO_PKG_VERSION"), build, env!("TIDEGATE_RUST")]).set(1.0);
}
