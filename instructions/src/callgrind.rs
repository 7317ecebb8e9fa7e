//! Runs this program under Valgrind's callgrind, and reads the counts that it writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Large blocks do not begin at random lines of the cache, since copies of them would take more or less, and nothing is
/// given back to the system after a time.
const ALLOCATOR_OPTIONS: &str = "cache_oblivious:false,dirty_decay_ms:-1,muzzy_decay_ms:-1";

/// Where callgrind writes what has been counted since the last time: before this is called.
pub const DUMP: &str = "--dump-before=*dump_point*";

#[inline(never)]
pub fn dump_point(name: &str) {
    std::hint::black_box(name);
}

/// Runs this program under callgrind.
pub struct Callgrind {
    folder: PathBuf,
}

/// The counts of one run, in the files `NAME.1`, `NAME.2`, … of the folder.
pub struct Dumps {
    file: PathBuf,
    /// How many of them have been read.
    read: usize,
}

impl Callgrind {
    /// The files of earlier runs are removed from `folder`.
    pub fn new(folder: &Path) -> Result<Self, String> {
        // It need not exist yet.
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The command that runs this program with `arguments`, and where it will dump what it counts. `options` say when.
    pub fn command(
        &self,
        name: &str,
        options: &[&str],
        arguments: &[&str],
    ) -> Result<(Command, Dumps), String> {
        let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let file = self.folder.join(name);
        let mut command = Command::new("valgrind");
        command
            .env("_RJEM_MALLOC_CONF", ALLOCATOR_OPTIONS)
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .args(options)
            .arg(program)
            .args(arguments);
        Ok((command, Dumps { file, read: 0 }))
    }
}

impl Dumps {
    /// The instructions of the next dump, which must have been written.
    pub fn next(&mut self) -> Result<u64, String> {
        self.read += 1;
        let mut file = self.file.clone().into_os_string();
        file.push(format!(".{}", self.read));
        let file = PathBuf::from(file);
        let text = fs::read_to_string(&file)
            .map_err(|error| format!("callgrind has not written {}: {error}", file.display()))?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        total
            .and_then(|total| total.trim().parse().ok())
            .ok_or_else(|| format!("no total in {}", file.display()))
    }
}
