//! The steps of `cargo xtask test`, weakest sufficient method first.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{command, paths, setup};

/// Seeds that every run of the tests simulates.
const SEEDS: &str = "200";

/// One step: its name and what it runs.
struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: [Step; 7] = [
    Step { name: "format", run: || cargo(&["fmt", "--all", "--check"]) },
    Step { name: "clippy", run: clippy },
    Step { name: "tidy", run: crate::tidy::run },
    Step { name: "gen", run: || crate::generation::run(true) },
    Step { name: "tests", run: tests },
    Step { name: "sim", run: simulate },
    Step { name: "mutation", run: mutate },
];

/// Runs all steps, or those whose name contains `filter`.
pub fn run(filter: Option<&str>) -> Result<()> {
    setup::run(setup::For::Tests)?;
    let chosen: Vec<&Step> =
        STEPS.iter().filter(|step| filter.is_none_or(|text| step.name.contains(text))).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("no step is named like that; the steps are {}", names.join(", "));
    }
    let mut times = Vec::new();
    for step in chosen {
        println!("\n== {} ==", step.name);
        let start = Instant::now();
        (step.run)().with_context(|| format!("step `{}` failed", step.name))?;
        times.push((step.name, start.elapsed().as_secs()));
    }
    println!("\n== all steps passed ==");
    for (name, seconds) in times {
        println!("{name:>10} {seconds:>5} s");
    }
    Ok(())
}

/// The same for CI, where a test that would skip itself for want of a program fails.
pub fn run_in_ci() -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    command::run(Command::new(program).arg("test").env("CI", "true"))
}

fn clippy() -> Result<()> {
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn tests() -> Result<()> {
    // The tests under `local` run the binary itself.
    cargo(&["build", "--quiet", "--package", "matriarch"])?;
    cargo(&["test", "--quiet", "--workspace", "--no-fail-fast"])
}

fn simulate() -> Result<()> {
    let words = vec!["--seeds".to_owned(), SEEDS.to_owned()];
    if matriarch_sim::main_with(&words) == ExitCode::SUCCESS { Ok(()) } else { bail!("the simulator has findings") }
}

fn mutate() -> Result<()> {
    cargo(&[
        "test",
        "--quiet",
        "--package",
        "matriarch-sim",
        "--features",
        "mutation",
        "--test",
        "mutation",
        "--",
        "--nocapture",
    ])
}

/// `cargo xtask local …`: builds the binary and runs its one-machine mode.
pub fn local(arguments: &[String]) -> Result<ExitCode> {
    setup::run(setup::For::Demo)?;
    cargo(&["build", "--quiet", "--package", "matriarch"])?;
    let mut program = Command::new(target_directory()?.join("debug/matriarch"));
    program.arg("local").envs(setup::environment());
    if arguments.is_empty() {
        program.arg("up").arg(paths::workspace().join("examples/cluster.yaml"));
    } else {
        program.args(arguments);
    }
    let status = program.status().context("cannot start matriarch")?;
    Ok(exit_code(status))
}

/// `cargo xtask bench …`: the benchmarks live with the harnesses of the end-to-end tests.
pub fn bench(arguments: &[String]) -> Result<ExitCode> {
    setup::run(setup::For::Demo)?;
    cargo(&["build", "--quiet", "--release", "--package", "matriarch"])?;
    let mut bench = command::cargo(&paths::workspace());
    bench.envs(setup::environment());
    bench.env("MATRIARCH_BINARY", target_directory()?.join("release/matriarch"));
    bench.args(["run", "--quiet", "--package", "matriarch-e2e", "--bin", "bench", "--"]);
    let status = bench.args(arguments).status().context("cannot start the benchmark")?;
    Ok(exit_code(status))
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cargo(words: &[&str]) -> Result<()> {
    let mut cargo = command::cargo(&paths::workspace());
    command::run(cargo.args(words).envs(setup::environment()))
}

fn target_directory() -> Result<std::path::PathBuf> {
    let metadata = crate::tidy::metadata()?;
    let text = metadata["target_directory"].as_str().context("cargo metadata has no target")?;
    Ok(text.into())
}
