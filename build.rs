//! Passes the version of the Rust compiler to the program.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    // "rustc 1.90.0 (1159e78c4 2025-09-14)"
    let version = text.ok().and_then(|text| Some(text.split_whitespace().nth(1)?.to_owned()));
    println!("cargo::rustc-env=TIDEGATE_RUST={}", version.as_deref().unwrap_or("unknown"));
}
