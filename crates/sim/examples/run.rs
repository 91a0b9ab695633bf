//! `cargo xtask sim` without the rest of xtask.
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    #[expect(clippy::disallowed_types, reason = "the rate is measured outside the simulator")]
    let began = std::time::Instant::now();
    matriarch_sim::main_with(&arguments, &|| began.elapsed())
}
