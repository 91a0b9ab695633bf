//! `cargo xtask sim` without the rest of xtask.
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    matriarch_sim::main_with(&arguments)
}
