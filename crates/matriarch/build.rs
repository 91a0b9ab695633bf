//! How the binary is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Relocations of a position-independent program are read at every start and then count as the
    // process's memory: packed they are a hundredth of the size (DT_RELR, glibc 2.36, musl 1.2.4).
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
