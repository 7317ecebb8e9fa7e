//! The limits, and what is said when one is exceeded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Counts of a function differ by less, because of the seeds of hash maps, of what is due by the clock, and of where the
/// allocator puts large buffers.
const TOLERANCE: f64 = 0.1;

/// Counts of an operation differ more: they include how threads wake each other, and what a gateway does in the
/// background meanwhile.
const TOLERANCE_OF_OPERATIONS: f64 = 0.3;

/// The instructions of each function and operation, by name.
pub struct Measured {
    pub functions: Vec<(String, f64)>,
    pub operations: Vec<(String, f64)>,
}

impl Measured {
    /// Keeps the lower count of each.
    pub fn keep_least(&mut self, other: Self) {
        let others = other.functions.into_iter().chain(other.operations);
        for ((_, count), (_, other)) in
            self.functions.iter_mut().chain(&mut self.operations).zip(others)
        {
            *count = count.min(other);
        }
    }
}

/// What was measured when the limits were set.
pub struct Limits {
    rustc: String,
    functions: BTreeMap<String, f64>,
    operations: BTreeMap<String, f64>,
}

/// The compiler, whose versions differ by some percent.
fn rustc() -> String {
    let output = std::process::Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

impl Limits {
    pub fn read(path: &Path) -> Result<Self, String> {
        let invalid = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| invalid(&error))?;
        let file: toml::Table = text.parse().map_err(|error| invalid(&error))?;
        let numbers = |name: &str| -> BTreeMap<String, f64> {
            let table = file.get(name).and_then(toml::Value::as_table).into_iter().flatten();
            table
                .filter_map(|(name, number)| Some((name.clone(), number.as_integer()? as f64)))
                .collect()
        };
        let rustc = file.get("rustc").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { rustc, functions: numbers("functions"), operations: numbers("operations") })
    }

    /// Whether a function or an operation is above its limit by more than the tolerance.
    pub fn are_exceeded_by(&self, measured: &Measured) -> bool {
        let exceeded = |counts: &[(String, f64)], limits: &BTreeMap<String, f64>, tolerance| {
            counts.iter().any(|(name, count)| {
                limits.get(name).is_some_and(|limit| *count > limit * (1.0 + tolerance))
            })
        };
        exceeded(&measured.functions, &self.functions, TOLERANCE)
            || exceeded(&measured.operations, &self.operations, TOLERANCE_OF_OPERATIONS)
    }

    /// Prints everything that was measured.
    ///
    /// # Errors
    /// What is above its limit by more than the tolerance, has no limit, or was not measured.
    pub fn check(&self, measured: &Measured) -> Result<(), String> {
        let mut wrong = String::new();
        compare("Functions", &measured.functions, &self.functions, TOLERANCE, &mut wrong);
        compare(
            "Operations of a gateway",
            &measured.operations,
            &self.operations,
            TOLERANCE_OF_OPERATIONS,
            &mut wrong,
        );
        if wrong.is_empty() {
            return Ok(());
        }
        let rustc = rustc();
        if rustc != self.rustc {
            let _ = write!(wrong, "\nThe limits are those of {}; this is {rustc}.", self.rustc);
        }
        Err(format!(
            "\nInstructions above their limits:\n{wrong}\n\
             To see where they are: callgrind_annotate on the files in target/instructions.\n\
             If they are worth it, set the limits to what was measured with `instructions/run update`, and say why in the \
             commit."
        ))
    }

    /// Writes what was measured as the new limits.
    pub fn update(path: &Path, measured: &Measured) -> Result<(), String> {
        let mut text = format!(
            "# Instructions of each function and operation. `instructions/run` fails above them and a tolerance;\n\
             # `instructions/run update` sets them to what it measures.\n\
             rustc = {:?}\n",
            rustc()
        );
        let sections = [("functions", &measured.functions), ("operations", &measured.operations)];
        for (section, counts) in sections {
            let _ = write!(text, "\n[{section}]\n");
            for (name, count) in counts {
                println!("{count:12.0}  {name}");
                let _ = writeln!(text, "{name:?} = {count:.0}");
            }
        }
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn compare(
    title: &str,
    measured: &[(String, f64)],
    limits: &BTreeMap<String, f64>,
    tolerance: f64,
    wrong: &mut String,
) {
    println!("\n{title}: instructions, and their change from the limit");
    for (name, count) in measured {
        let Some(limit) = limits.get(name) else {
            println!("{count:12.0}          {name}");
            let _ = writeln!(wrong, "  {name}: {count:.0}, without a limit");
            continue;
        };
        let change = (count - limit) / limit.max(1.0);
        let percent = 100.0 * change;
        println!("{count:12.0} {percent:+7.1} %  {name}");
        if change > tolerance {
            let _ = writeln!(wrong, "  {name}: {count:.0} instead of {limit:.0} ({percent:+.1} %)");
        }
    }
    for name in limits.keys().filter(|name| !measured.iter().any(|(other, _)| other == *name)) {
        let _ = writeln!(wrong, "  {name}: has a limit, and is not measured any more");
    }
}
