//! Facts about the process itself, read when somebody asks for them.

use super::definitions::{Values, metrics};

metrics! {
    /// 1, with what runs here.
    BUILD_INFO = gauge "tidegate_build_info" [
        version: Values::Fixed("the version of the package"),
        build: Values::Fixed("what the packager called it, say a commit"),
        rust: Values::Fixed("the compiler"),
    ];
    /// Time on a processor, in user space and in the kernel. Linux only, like all that begin with `process_`.
    CPU = counter "process_cpu_seconds_total", read;
    /// Memory that is in RAM.
    RESIDENT = gauge "process_resident_memory_bytes", read;
    /// Address space, most of which costs nothing.
    VIRTUAL = gauge "process_virtual_memory_bytes", read;
    /// Open files and sockets.
    OPEN_FDS = gauge "process_open_fds", read;
    /// Files and sockets that may be open.
    MAX_FDS = gauge "process_max_fds", read;
    /// Threads of the operating system.
    THREADS = gauge "process_threads", read;
    /// When the process started, since 1970.
    START_TIME = gauge "process_start_time_seconds", read;
}

/// The process begins to count.
pub(super) fn started() {
    let build = option_env!("TIDEGATE_BUILD").unwrap_or("unknown");
    BUILD_INFO.at([env!("CARGO_PKG_VERSION"), build, env!("TIDEGATE_RUST")]).set(1.0);
}

/// What the operating system says of this process.
struct Look {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_fds: usize,
    /// `None` = as many as it likes.
    max_fds: Option<u64>,
    threads: i64,
    started: f64,
}

/// Adds it to a scrape's `page`, or nothing where it is not known. The recorder would keep whole numbers
/// only. Reads files: not for a thread that has connections.
pub(super) fn write(page: &mut String) {
    let Some(look) = Look::now() else { return };
    CPU.write(page, look.cpu_seconds);
    RESIDENT.write(page, look.resident_bytes as f64);
    VIRTUAL.write(page, look.virtual_bytes as f64);
    OPEN_FDS.write(page, look.open_fds as f64);
    if let Some(max_fds) = look.max_fds {
        MAX_FDS.write(page, max_fds as f64);
    }
    THREADS.write(page, look.threads as f64);
    START_TIME.write(page, look.started);
}

impl Look {
    #[cfg(target_os = "linux")]
    fn now() -> Option<Self> {
        use procfs::process::{LimitValue, Process};

        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        let max_fds = match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(count) => Some(count),
            LimitValue::Unlimited => None,
        };
        Some(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_fds: process.fd_count().ok()?,
            max_fds,
            threads: stat.num_threads,
            started: procfs::boot_time_secs().ok()? as f64 + seconds(stat.starttime),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<Self> {
        None
    }
}
