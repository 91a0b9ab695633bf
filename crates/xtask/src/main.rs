//! The project's only entry point for developers: `cargo xtask <verb>`.

mod command;
mod e2e;
mod image;
mod kube;
mod paths;
mod setup;
mod suite;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, tests, generation and simulation of Matriarch.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what build, tests and demo need; does nothing when all is there.
    Setup {
        /// Only what `cargo xtask local` needs: a PostgreSQL.
        #[arg(long)]
        demo: bool,
        /// Also what `cargo xtask kube` needs: a whole Kubernetes. Root is needed.
        #[arg(long, conflicts_with = "demo")]
        cluster: bool,
    },
    /// Bring up a cluster on this machine: `matriarch local up` with what follows.
    Local {
        /// Arguments of `matriarch local`; `up examples/cluster.yaml` if none.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every check and test.
    Test {
        /// Only the steps whose name contains this.
        filter: Option<String>,
    },
    /// What CI runs: the same as `test`, and nothing may be skipped.
    Ci,
    /// Run the simulator: `--seed N` tells one story, `--seeds N` runs many.
    Sim {
        /// Arguments of the simulator.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure: `failover --local`, `scale`.
    Bench {
        /// Arguments of the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A real Kubernetes of several nodes on this machine.
    Kube {
        /// What to do.
        #[command(subcommand)]
        verb: kube::Verb,
    },
    /// Run the tests on a real Kubernetes: starts it, makes and loads images, installs the operator.
    E2e(e2e::Arguments),
    /// Make images for the test cluster, without Docker: those named, or all.
    Image(image::Arguments),
    /// Write the generated files: CRDs and the API reference.
    Gen {
        /// Fail if a file would change, and write nothing.
        #[arg(long)]
        check: bool,
    },
    /// Check what the compiler cannot: borders, sizes, names, licences.
    Tidy,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Setup { demo: true, .. } => setup::run(setup::For::Demo)?,
        Verb::Setup { demo: false, cluster } => {
            setup::run(setup::For::Tests)?;
            if cluster {
                setup::run(setup::For::Cluster(&setup::release::RELEASES[0]))?;
            }
        }
        Verb::Local { arguments } => return suite::local(&arguments),
        Verb::Test { filter } => suite::run(filter.as_deref())?,
        Verb::Ci => suite::run_in_ci()?,
        Verb::Sim { arguments } => return suite::simulate(&arguments),
        Verb::Bench { arguments } => return suite::bench(&arguments),
        Verb::Kube { verb } => return kube::run(verb),
        Verb::E2e(arguments) => e2e::run(&arguments)?,
        Verb::Image(arguments) => image::run(&arguments)?,
        Verb::Gen { check } => suite::generate(check)?,
        Verb::Tidy => tidy::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
