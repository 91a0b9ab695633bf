//! `cargo xtask e2e`: the tests against a real Kubernetes, with all that they need made first.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::release::RELEASES;
use crate::suite::Build;
use crate::{command, image, kube, suite};

/// A test whose name begins so breaks what others use, or needs the machine's whole attention.
const ALONE: &str = "alone_";
/// A test whose name has this belongs to the level that runs with every change.
const SMOKE: &str = "smoke";
/// So many of the others run at once: each has three databases.
const AT_ONCE: &str = "--test-threads=2";

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
    if !arguments.installed {
        install(arguments.build(), &program)?;
    }
    test(arguments, &program)
}

/// Loads what `cargo xtask image` makes, and installs the operator as a user does.
fn install(build: Build, program: &Path) -> Result<()> {
    let mut renewed = false;
    image::run(&image::Arguments::all(build))?;
    for name in image::ARCHIVES {
        let archive = crate::paths::kube().join("images").join(name);
        renewed |= kube::load_once(&archive)? && name == image::ARCHIVES[0];
    }
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

fn test(arguments: &Arguments, program: &Path) -> Result<()> {
    let names = names(program)?;
    let wanted: Vec<&String> = names
        .iter()
        .filter(|name| arguments.filter.as_ref().is_none_or(|text| name.contains(text)))
        .filter(|name| !arguments.smoke || name.contains(SMOKE))
        .collect();
    if wanted.is_empty() {
        bail!("no test is named like that; there are:\n{}", names.join("\n"));
    }
    let (alone, together): (Vec<&String>, Vec<&String>) =
        wanted.into_iter().partition(|name| own_name(name).starts_with(ALONE));
    let mut failed = Vec::new();
    for (group, threads) in [(together, AT_ONCE), (alone, "--test-threads=1")] {
        if group.is_empty() {
            continue;
        }
        let mut cargo = cargo(program)?;
        cargo.args(["--ignored", "--nocapture", "--exact", threads]).args(group);
        if let Err(error) = command::run(&mut cargo) {
            failed.push(error);
        }
    }
    failed.into_iter().next().map_or(Ok(()), Err)
}

fn own_name(test: &str) -> &str {
    test.rsplit("::").next().unwrap_or(test)
}

fn names(program: &Path) -> Result<Vec<String>> {
    let mut cargo = cargo(program)?;
    let listed = command::run_quietly(cargo.args(["--list", "--ignored", "--format", "terse"]))?;
    Ok(listed.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect())
}

/// `cargo test` of the one test binary, in the selection that everything else is built with.
fn cargo(program: &Path) -> Result<Command> {
    let mut cargo = suite::cargo_command();
    cargo.envs(kube::environment()?);
    cargo.env("MATRIARCH_KUBE", crate::paths::kube());
    cargo.env("MATRIARCH_XTASK", std::env::current_exe().context("cannot find this program")?);
    cargo.env("MATRIARCH_BINARY", program);
    cargo.args(["test", "--workspace", "--test", "cluster", "--"]);
    Ok(cargo)
}
