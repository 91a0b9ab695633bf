//! The steps of `cargo xtask test`, weakest sufficient method first.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::setup::release::{OLDEST, RELEASES};
use crate::{command, e2e, kube, paths, setup};

/// One step: its name and what it runs.
struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: [Step; 6] = [
    Step { name: "format", run: || cargo(&["fmt", "--all", "--check"]) },
    Step { name: "tidy", run: crate::tidy::run },
    Step { name: "build", run: build },
    Step { name: "tests", run: tests },
    Step { name: "oldest", run: oldest },
    Step { name: "cluster", run: cluster },
];

/// Runs all steps, or those whose name contains `filter`.
pub fn run(filter: Option<&str>) -> Result<()> {
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
        let seconds = start.elapsed().as_secs();
        println!("\n== {} passed, {seconds} s ==", step.name);
        times.push((step.name, seconds));
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

/// Everything, linted while it is compiled: `cargo clippy` would check all
/// dependencies once more, which takes a third of the time of the whole suite. Meanwhile the
/// programs that tests need are made: on a new machine that takes as long.
fn build() -> Result<()> {
    std::thread::scope(|scope| {
        let programs = scope.spawn(|| {
            setup::run(setup::For::Tests)?;
            if kube::is_possible() { setup::run(setup::For::Cluster(&RELEASES[0])) } else { Ok(()) }
        });
        linting(&["test", "--workspace", "--tests", "--no-run"])?;
        programs.join().unwrap_or_else(|_| bail!("the set-up ended in a panic"))
    })
}

/// Every test of every package, in the selection that was built: another one would resolve other
/// features and build the dependencies anew.
fn tests() -> Result<()> {
    setup::run(setup::For::Tests)?;
    linting(&["test", "--workspace", "--tests", "--no-fail-fast"])
}

/// The tests of what is installed and asked of an API server, before the oldest that we serve: the
/// others compare with the words of the newest, or need no API server.
fn oldest() -> Result<()> {
    setup::run(setup::For::Tests)?;
    let mut cargo = cargo_command();
    lint(&mut cargo)?;
    cargo.env("MATRIARCH_TOOLS", OLDEST.programs());
    cargo.args(["test", "--workspace", "--test", "kubernetes", "--"]);
    command::run(cargo.args(["crd::", "installing::", "operator::", "pods::"]))
}

/// The short level of the tests on a real Kubernetes, which only root can start.
fn cluster() -> Result<()> {
    if !kube::is_possible() {
        println!("*** SKIPPED: a Kubernetes needs root, and namespaces that root may make ***");
        return Ok(());
    }
    let tested = e2e::run(&e2e::Arguments::smoke());
    let ended = kube::run(kube::Verb::Down);
    tested?;
    ended.map(drop)
}

/// Writes the generated files, or with `check` fails if one of them differs.
pub fn generate(check: bool) -> Result<()> {
    let words = ["test", "--quiet", "--workspace", "--test", "kubernetes"];
    let mut cargo = command::cargo(&paths::workspace());
    if !check {
        cargo.env("MATRIARCH_GENERATE", "1");
    }
    command::run(cargo.args(words).args(["--", "--nocapture", "generated::"]))
}

/// `cargo xtask sim …`: builds the simulator and runs it.
pub fn simulate(arguments: &[String]) -> Result<ExitCode> {
    let mut words = vec!["run", "--package", "matriarch-sim"];
    if arguments.iter().any(|argument| argument == "--mutations" || argument == "--without") {
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
    cargo(&["build", "--package", "matriarch"])?;
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
    // The operator alone is measured before a real API server, the others with a PostgreSQL.
    let scale = arguments.first().is_some_and(|bench| bench == "scale");
    setup::run(if scale { setup::For::Tests } else { setup::For::Demo })?;
    let release = shipped(&["matriarch", "matriarch-e2e"], None)?;
    let mut program = Command::new(release.join("matriarch-bench"));
    program.args(arguments).envs(setup::environment());
    if arguments.iter().any(|word| word == "--kube") {
        program.envs(e2e::ready(Build::Shipped, &release.join("matriarch"))?);
    }
    let status = program
        .env("MATRIARCH_BINARY", release.join("matriarch"))
        .status()
        .context("cannot start the benchmark")?;
    Ok(exit_code(status))
}

/// Linked statically, and compiled as what they are, executables that lie anywhere: what could be in
/// a shared library as well goes through tables that are relocated, and so resident, in every
/// process (docs/decisions/0006).
const SHIPPED_FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=pie";

/// How the one program is compiled for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As it ships.
    Shipped,
    /// From what was compiled for the tests already: a fraction of the time.
    Tested,
}

/// The one program linked statically, because any image with PostgreSQL in it has to do (traps P2).
/// It says that it is `version`, or without one the version of its source.
pub fn program(build: Build, version: Option<&str>) -> Result<PathBuf> {
    match build {
        Build::Shipped => Ok(shipped(&["matriarch"], version)?.join("matriarch")),
        Build::Tested => tested(version),
    }
}

/// Programs for their size, and linked statically. The target is named, else procedural macros
/// would be linked so too (traps P5). The directory that holds them.
fn shipped(packages: &[&str], version: Option<&str>) -> Result<PathBuf> {
    let target = host()?;
    let mut cargo = cargo_command();
    cargo.args(["build", "--release", "--target", &target]).env("RUSTFLAGS", SHIPPED_FLAGS);
    for package in packages {
        cargo.args(["--package", package]);
    }
    command::run(with_version(&mut cargo, version))?;
    Ok(target_directory()?.join(target).join("release"))
}

/// Only the last step differs from what the tests compile: a flag for the one crate that is linked
/// decides which C library is taken. With a version of its own everything that may name it is
/// compiled anew, so that is done without clippy: cargo keeps it apart from what the tests use.
fn tested(version: Option<&str>) -> Result<PathBuf> {
    let mut cargo = cargo_command();
    if version.is_none() {
        lint(&mut cargo)?;
    }
    cargo.args(["rustc", "--package", "matriarch", "--bin", "matriarch"]);
    cargo.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    command::run(with_version(&mut cargo, version))?;
    Ok(target_directory()?.join("debug/matriarch"))
}

fn with_version<'a>(cargo: &'a mut Command, version: Option<&str>) -> &'a mut Command {
    match version {
        Some(version) => cargo.env("MATRIARCH_VERSION", version),
        None => cargo.env_remove("MATRIARCH_VERSION"),
    }
}

/// The target that this toolchain compiles for by itself.
fn host() -> Result<String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(paths::workspace()).arg("-vV");
    let said = command::run_quietly(&mut rustc)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cargo(words: &[&str]) -> Result<()> {
    command::run(cargo_command().args(words))
}

pub fn cargo_command() -> Command {
    let mut cargo = command::cargo(&paths::workspace());
    // A failed test says why in its own words; forty lines of frames hide them.
    cargo.env("RUST_BACKTRACE", "0").envs(setup::environment());
    cargo
}

/// Cargo with our own packages compiled by clippy, every finding an error.
fn linting(words: &[&str]) -> Result<()> {
    let mut cargo = cargo_command();
    lint(&mut cargo)?;
    command::run(cargo.args(words))
}

pub fn lint(cargo: &mut Command) -> Result<()> {
    cargo.env("RUSTC_WORKSPACE_WRAPPER", clippy_driver()?);
    cargo.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    Ok(())
}

/// Clippy of the toolchain that compiles here: another one would not know its standard library.
fn clippy_driver() -> Result<PathBuf> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(paths::workspace()).args(["--print", "sysroot"]);
    let driver = Path::new(command::run_quietly(&mut rustc)?.trim()).join("bin/clippy-driver");
    if !driver.is_file() {
        bail!("clippy is missing: rustup component add clippy");
    }
    Ok(driver)
}

fn target_directory() -> Result<PathBuf> {
    let metadata = crate::tidy::metadata()?;
    let text = metadata["target_directory"].as_str().context("cargo metadata has no target")?;
    Ok(text.into())
}
