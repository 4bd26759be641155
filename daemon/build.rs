//! How the binary is linked: small. The daemon sits on other people's machines.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("PROFILE") != "release" || variable("CARGO_CFG_TARGET_OS") != "linux" || variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    // Sixteen thousand relocations of 24 bytes each become a bitmap: 0.37 MB less. Needs glibc 2.36, Debian 12's.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // Functions of the same code become one, as in Chromium (with SQLite, BoringSSL and Rust in it). GNU's linker cannot.
    if links_with_lld(&variable("RUSTC"), &variable("TARGET")) {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// Whether this compiler brings its own lld, and links with it by itself: rustup's does on x86-64
/// (<https://blog.rust-lang.org/2025/09/01/rust-lld-on-1.90.0-stable/>).
fn links_with_lld(rustc: &str, target: &str) -> bool {
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output().ok().filter(|o| o.status.success());
    let sysroot = sysroot.and_then(|o| String::from_utf8(o.stdout).ok()).unwrap_or_default();
    target == "x86_64-unknown-linux-gnu" && Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("bin/gcc-ld/ld.lld").exists()
}
