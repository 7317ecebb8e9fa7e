//! The binary: chooses the allocator and runs [`tidegate::cli`].

use std::process::ExitCode;

/// Idle connections are many small allocations of a few sizes, which jemalloc packs tighter than glibc.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidegate::cli::run()
}
