//! The simulator as a program; `cargo xtask sim` runs it.

#[expect(clippy::disallowed_methods, reason = "a program reads its command line")]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    matriarch_sim::main_with(&arguments)
}
