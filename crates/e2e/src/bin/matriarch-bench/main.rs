//! Measures; started by `cargo xtask bench`, which builds the program under test as it ships.

mod failover;
mod figures;
mod kubernetes;
mod load;
mod one_machine;
mod pauses;

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
}

fn main() -> ExitCode {
    let Arguments { bench: Bench::Failover(arguments) } = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(failover::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
