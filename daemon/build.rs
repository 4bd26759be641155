//! How the binary is linked: small. The daemon sits on other people's machines.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
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

/// The flag alone leaves them in: the standard library brings its own and debug information, and for a module that has both the
/// compiler writes tables for every function, ours too. The linker drops them: 0.83 MB less, and a crash has no backtrace, only
/// its message and place.
fn no_unwind_tables() -> PathBuf {
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo gives a folder")).join("no-unwind-tables.ld");
    let script = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.gcc_except_table*) } } INSERT AFTER .comment;\n";
    std::fs::write(&path, script).expect("the folder can be written");
    path
}
