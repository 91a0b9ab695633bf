//! Measures; started by `cargo xtask bench`, which builds the program under test as it ships.

mod crowd;
mod failover;
mod figures;
mod kubernetes;
mod load;
mod one_machine;
mod pauses;
mod scale;
mod watched;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Figures of Matriarch.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// How long a client cannot write when the primary is lost or moved.
    Failover(failover::Arguments),
    /// What the operator needs with many clusters, and how soon it acts.
    Scale(scale::Arguments),
}

fn main() -> ExitCode {
    let Arguments { bench } = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    let measured = runtime.block_on(async {
        match bench {
            Bench::Failover(arguments) => failover::run(arguments).await,
            Bench::Scale(arguments) => scale::run(arguments).await,
        }
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
