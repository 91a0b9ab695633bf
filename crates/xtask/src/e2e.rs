//! `cargo xtask e2e`: the tests against a real Kubernetes, with all that they need made first.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::setup::release::RELEASES;
use crate::suite::Build;
use crate::{command, image, kube, suite};

/// A test whose name begins so breaks what others use, or needs the machine's whole attention.
const ALONE: &str = "alone_";
/// A test whose name has this belongs to the level that runs with every change.
const SMOKE: &str = "smoke";
/// So many of the others run at once: each has three databases.
const AT_ONCE: &str = "--test-threads=2";

/// So many characters of a failed test's reason are said again at the end.
const REASON: usize = 1200;

/// Which tests.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the tests whose name contains this.
    filter: Option<String>,
    /// Only the level that runs with every change.
    #[arg(long)]
    smoke: bool,
    /// Use the operator that is installed already.
    #[arg(long)]
    installed: bool,
    /// The program as it ships, not as the tests compile it: minutes more.
    #[arg(long)]
    shipped: bool,
}

impl Arguments {
    /// The level that runs with every change.
    pub fn smoke() -> Self {
        Self { filter: None, smoke: true, installed: false, shipped: false }
    }

    fn build(&self) -> Build {
        if self.shipped { Build::Shipped } else { Build::Tested }
    }
}

/// Starts the cluster, loads images, installs the operator, and runs the tests.
///
/// # Errors
/// If something cannot be made, or a test fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    kube::run(kube::Verb::Up { nodes: 3, kubernetes: RELEASES[0].minor.to_owned() })?;
    let program = suite::program(arguments.build(), None)?;
    let tests = test_program()?;
    let wanted = select(arguments, &tests)?;
    if !arguments.installed {
        install(arguments.build(), &program)?;
    }
    test(wanted, &tests, &program)
}

/// The test binary, in the selection that everything else is built with, and under clippy as it is.
fn test_program() -> Result<PathBuf> {
    let mut cargo = suite::cargo_command();
    suite::lint(&mut cargo)?;
    cargo.args(["test", "--workspace", "--test", "cluster", "--no-run"]);
    command::run(&mut cargo)?;
    let said = command::run_quietly(cargo.arg("--message-format=json"))?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|it| it["target"]["name"] == "cluster");
    let program = programs.find_map(|it| it["executable"].as_str().map(PathBuf::from));
    program.context("cargo names no test binary")
}

/// Starts the cluster, loads images and installs the operator, for a benchmark: the environment in
/// which it finds them.
///
/// # Errors
/// If something cannot be made.
pub fn ready(build: Build, program: &Path) -> Result<Vec<(&'static str, OsString)>> {
    kube::run(kube::Verb::Up { nodes: 3, kubernetes: RELEASES[0].minor.to_owned() })?;
    install(build, program)?;
    environment(program)
}

/// Where the tests and benchmarks find what they need.
fn environment(program: &Path) -> Result<Vec<(&'static str, OsString)>> {
    let xtask = std::env::current_exe().context("cannot find this program")?;
    let mut environment: Vec<(&'static str, OsString)> =
        kube::environment()?.map(|(name, path)| (name, path.into_os_string())).into();
    environment.extend([
        ("MATRIARCH_KUBE", crate::paths::kube().into_os_string()),
        ("MATRIARCH_XTASK", xtask.into_os_string()),
        ("MATRIARCH_BINARY", program.as_os_str().to_owned()),
        ("MATRIARCH_HELM", crate::paths::helm().into_os_string()),
    ]);
    Ok(environment)
}

/// Loads what `cargo xtask image` makes, and installs the operator as a user does.
fn install(build: Build, program: &Path) -> Result<()> {
    let mut renewed = false;
    image::run(&image::Arguments::all(build))?;
    for name in image::ARCHIVES {
        let archive = crate::paths::kube().join("images").join(name);
        renewed |= kube::load_once(&archive)? && name == image::ARCHIVES[0];
    }
    kube::load_once(&image::next(build)?)?;
    let image = format!("localhost/matriarch/operator:{}", env!("CARGO_PKG_VERSION"));
    let mut generate = Command::new(program);
    generate.args(["install", "generate", "--image", &image, "--replicas", "2"]);
    generate.args(["--postgres-image", "localhost/matriarch/postgresql:17"]);
    let objects = command::run_quietly(&mut generate)?;
    apply(&objects)?;
    let deployment = "deployment/matriarch-operator";
    let inside = ["--namespace", "matriarch-system"];
    if renewed {
        kubectl()?.args(["rollout", "restart", deployment]).args(inside).status()?;
    }
    let mut wait = kubectl()?;
    wait.args(["rollout", "status", "--timeout=120s", deployment]).args(inside);
    command::run(&mut wait).context("the operator does not come up")
}

fn kubectl() -> Result<Command> {
    let [(_, kubeconfig), (_, tools)] = kube::environment()?;
    let mut command = Command::new(tools.join("kubectl"));
    command.env("KUBECONFIG", kubeconfig);
    Ok(command)
}

fn apply(objects: &str) -> Result<()> {
    let mut apply = kubectl()?;
    apply.args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = apply.spawn().context("cannot start kubectl")?;
    let mut input = child.stdin.take().context("its input is a pipe")?;
    input.write_all(objects.as_bytes()).context("kubectl does not read")?;
    drop(input);
    if child.wait().context("kubectl does not end")?.success() {
        return Ok(());
    }
    bail!("kubectl apply does not accept what `matriarch install generate` printed")
}

/// The tests that are asked for.
fn select(arguments: &Arguments, tests: &Path) -> Result<Vec<String>> {
    let names = names(tests)?;
    let wanted: Vec<String> = names
        .iter()
        .filter(|name| arguments.filter.as_ref().is_none_or(|text| name.contains(text)))
        .filter(|name| !arguments.smoke || name.contains(SMOKE))
        .cloned()
        .collect();
    if wanted.is_empty() {
        bail!("no test is named like that; there are:\n{}", names.join("\n"));
    }
    Ok(wanted)
}

fn test(wanted: Vec<String>, tests: &Path, program: &Path) -> Result<()> {
    let (alone, together): (Vec<String>, Vec<String>) =
        wanted.into_iter().partition(|name| own_name(name).starts_with(ALONE));
    let (mut failed, begun) = (Vec::new(), SystemTime::now());
    for (group, threads) in [(together, AT_ONCE), (alone, "--test-threads=1")] {
        if group.is_empty() {
            continue;
        }
        let mut run = Command::new(tests);
        run.current_dir(crate::paths::workspace().join("crates/e2e")).envs(environment(program)?);
        // A failed test says why in its own words; forty lines of frames hide them.
        run.env("RUST_BACKTRACE", "0");
        run.args(["--ignored", "--nocapture", "--exact", threads]).args(group);
        if let Err(error) = command::run(&mut run) {
            failed.push(error);
        }
    }
    if !failed.is_empty() {
        repeat_reasons(begun);
    }
    failed.into_iter().next().map_or(Ok(()), Err)
}

/// Says why tests failed once more, in short, below all that the others printed: the end is what CI
/// keeps of a log.
fn repeat_reasons(begun: SystemTime) {
    let directory = crate::paths::kube().join("failures");
    let Ok(namespaces) = std::fs::read_dir(&directory) else { return };
    for path in namespaces.flatten().map(|it| it.path().join("reason.txt")) {
        let modified = path.metadata().and_then(|it| it.modified());
        if modified.is_ok_and(|at| at >= begun)
            && let Ok(reason) = std::fs::read_to_string(&path)
        {
            let short: String = reason.trim().chars().take(REASON).collect();
            eprintln!("{}: {short}", path.display());
        }
    }
}

fn own_name(test: &str) -> &str {
    test.rsplit("::").next().unwrap_or(test)
}

fn names(tests: &Path) -> Result<Vec<String>> {
    let mut list = Command::new(tests);
    let listed = command::run_quietly(list.args(["--list", "--ignored", "--format", "terse"]))?;
    Ok(listed.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect())
}
