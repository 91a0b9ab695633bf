//! The steps of `cargo xtask test`, weakest sufficient method first.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{command, paths, setup};

/// One step: its name and what it runs.
struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

/// Tests that are known to fail, each with its entry in docs/state.md. This list only shrinks.
const KNOWN_FINDINGS: [&str; 3] = [
    "any_history_is_safe_and_settles",
    "store_and_kube_apiserver_answer_alike",
    "nothing_happens_while_the_api_is_away",
];

/// The simulator's package: built optimised, so never together with the others.
const SIMULATOR: &str = "matriarch-sim";

const CLIPPY: [&str; 8] =
    ["clippy", "--quiet", "--workspace", "--all-targets", "--keep-going", "--", "-D", "warnings"];

const STEPS: [Step; 6] = [
    Step { name: "format", run: || cargo(&["fmt", "--all", "--check"]) },
    Step { name: "clippy", run: || cargo(&CLIPPY) },
    Step { name: "tidy", run: crate::tidy::run },
    Step { name: "generated", run: || crate::generation::run(true) },
    Step { name: "tests", run: tests },
    Step { name: "simulator", run: simulator },
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

/// Every test of every package, in one selection: another one would resolve other features and
/// build the dependencies anew.
fn tests() -> Result<()> {
    let words = vec!["test", "--workspace", "--exclude", SIMULATOR, "--no-fail-fast"];
    for test in KNOWN_FINDINGS {
        println!("skipped, a known finding: {test}");
    }
    cargo_test(words)
}

fn simulator() -> Result<()> {
    cargo_test(vec!["test", "--profile", "simulation", "--lib", "--package", SIMULATOR])
}

fn cargo_test(mut words: Vec<&str>) -> Result<()> {
    words.push("--");
    words.extend(KNOWN_FINDINGS.iter().flat_map(|test| ["--skip", test]));
    cargo(&words)
}

/// `cargo xtask sim …`: builds the simulator optimised and runs it.
pub fn simulate(arguments: &[String]) -> Result<ExitCode> {
    let mut words = vec!["run", "--quiet", "--profile", "simulation", "--package", SIMULATOR];
    if arguments.iter().any(|argument| argument == "--mutations") {
        words.extend(["--features", "mutation"]);
    }
    let mut cargo = command::cargo(&paths::workspace());
    cargo.args(words).arg("--").args(arguments);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(exit_code(status))
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

/// `cargo xtask bench …`: builds the binary as it ships, and measures it.
pub fn bench(arguments: &[String]) -> Result<ExitCode> {
    setup::run(setup::For::Tests)?;
    cargo(&["build", "--release", "--package", "matriarch", "--package", "matriarch-e2e"])?;
    let release = target_directory()?.join("release");
    let mut program = Command::new(release.join("matriarch-bench"));
    program.args(arguments).envs(setup::environment());
    let status = program
        .env("MATRIARCH_BINARY", release.join("matriarch"))
        .status()
        .context("cannot start the benchmark")?;
    Ok(exit_code(status))
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cargo(words: &[&str]) -> Result<()> {
    let mut cargo = command::cargo(&paths::workspace());
    // A failed test says why in its own words; forty lines of frames hide them.
    cargo.env("RUST_LIB_BACKTRACE", "0");
    command::run(cargo.args(words).envs(setup::environment()))
}

fn target_directory() -> Result<std::path::PathBuf> {
    let metadata = crate::tidy::metadata()?;
    let text = metadata["target_directory"].as_str().context("cargo metadata has no target")?;
    Ok(text.into())
}
