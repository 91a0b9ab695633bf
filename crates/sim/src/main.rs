//! The simulator as a program; `cargo xtask sim` runs it.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    matriarch_sim::main_with(&arguments)
}
