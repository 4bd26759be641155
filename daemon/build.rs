//! When the binary was built, and how it is linked: small. The daemon sits on other people's machines.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    tell_the_time();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_OS") != "linux" || variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    // Sixteen thousand relocations of 24 bytes each become a bitmap: 0.37 MB less. Needs glibc 2.36, Debian 12's.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    if variable("CARGO_ENCODED_RUSTFLAGS").contains("force-unwind-tables=no") {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", no_unwind_tables().display());
    }
}

/// No clock of a device that the binary runs on can honestly be earlier (src/trust/clock.rs).
fn tell_the_time() {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.trim().parse::<u64>().ok());
    let seconds = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()));
    println!("cargo:rustc-env=WHIMBREL_BUILT_SECONDS={seconds}");
}

/// The flag alone leaves them in: the standard library brings its own and debug information, and for a module that has both the
/// compiler writes tables for every function, ours too. The linker drops them: 0.83 MB less, and a crash has no backtrace, only
/// its message and place.
fn no_unwind_tables() -> PathBuf {
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo gives a folder")).join("no-unwind-tables.ld");
    let script = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.gcc_except_table*) } } INSERT AFTER .comment;\n";
    std::fs::write(&path, script).expect("the folder can be written");
    path
}
