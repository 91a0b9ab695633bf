//! The one binary: operator, keeper and agent of a database pod, one-machine mode, plugin.

mod arguments;
mod logging;
mod operator;
mod plugin;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use matriarch_agent::{AgentOptions, Ended, KeeperOptions};
use matriarch_local::proxy::Pace;
use matriarch_local::up::{self, UpOptions, verbs};

use crate::arguments::{AgentVerb, ApiState, Arguments, LocalVerb, Verb};

fn main() -> ExitCode {
    // What runs in every pod has no options: the code that reads them would stay in its memory.
    let mut words = std::env::args_os().skip(1);
    if std::env::args_os().skip(1).eq(["keeper", matriarch_agent::keeper::renewal::CHECK]) {
        return matriarch_agent::keeper::renewal::check();
    }
    let verb = match (words.next().as_deref().and_then(OsStr::to_str), words.next()) {
        (Some("keeper"), None) => Verb::Keeper,
        (Some("agent"), None) => Verb::Agent { verb: None },
        (Some(_) | None, _) => Arguments::parse().verb,
    };
    // The keeper has one thread, no TLS and no log of others: nothing is set up for it.
    if let Verb::Keeper = verb {
        return match KeeperOptions::from_environment() {
            Ok(options) => matriarch_agent::keeper::run(options),
            Err(error) => complain(&error.into()),
        };
    }
    logging::start(&verb);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a provider of cryptography was installed already");
    }
    match run(verb) {
        Ok(code) => code,
        Err(error) => complain(&error),
    }
}

/// The whole chain of causes, for a person, on standard error.
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("matriarch: {}", matriarch_api::causes::chain(error.as_ref()));
    ExitCode::FAILURE
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Agent { verb: None } => agent(),
        other => carry_out(other).map(|()| ExitCode::SUCCESS),
    }
}

fn agent() -> anyhow::Result<ExitCode> {
    let options = AgentOptions::from_environment()?;
    // Its operations hold borrowed closures across waits and stay on this thread.
    let local = tokio::task::LocalSet::new();
    Ok(match local.block_on(&single_thread()?, matriarch_agent::run(options))? {
        Ended::Pod => ExitCode::SUCCESS,
        Ended::Replaced => ExitCode::from(matriarch_agent::keeper::REPLACED),
    })
}

fn carry_out(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Agent { verb: Some(AgentVerb::Status { json: _ }) } => {
            Ok(matriarch_agent::status::print()?)
        }
        // Both have been dealt with.
        Verb::Keeper | Verb::Agent { verb: None } => Ok(()),
        Verb::Operator(arguments) => single_thread()?.block_on(operator::run(arguments)),
        Verb::Bootstrap { destination } => bootstrap(&destination),
        Verb::Local { verb } => local(verb),
        Verb::Install { verb } => Ok(matriarch_cli::install::run(verb)?),
        Verb::Plugin(verb) => single_thread()?.block_on(plugin::run(verb)),
    }
}

fn single_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

/// Copies this binary into the pod; the path is the pod's, below the pod's root.
fn bootstrap(destination: &Path) -> anyhow::Result<()> {
    let root = std::env::var_os("MATRIARCH_ROOT").unwrap_or_else(|| "/".into());
    let inside = destination.strip_prefix("/").unwrap_or(destination);
    let target = Path::new(&root).join(inside);
    up::program::install_to(&target)
        .with_context(|| format!("cannot copy this program to {}", target.display()))
}

fn local(verb: LocalVerb) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    match verb {
        LocalVerb::Up { files, place, user, port, api_identity, like_kube_proxy, no_operator } => {
            let options = UpOptions {
                files,
                state: place.state(),
                user,
                port,
                identity: api_identity,
                pace: if like_kube_proxy { Pace::KubeProxy } else { Pace::Immediate },
                operator: !no_operator,
            };
            Ok(runtime.block_on(up::run(options))?)
        }
        LocalVerb::Status { cluster: Some(cluster), verbose, output, place, api_identity } => {
            let connection = matriarch_cli::Connection { api_identity, ..Default::default() };
            let arguments =
                matriarch_cli::status::Arguments { cluster, verbose, output, connection };
            runtime.block_on(plugin::run_in(place, matriarch_cli::Verb::Status(arguments)))
        }
        LocalVerb::Status { cluster: None, verbose: _, output: _, place, api_identity } => {
            let text = runtime.block_on(verbs::status(&place.state(), api_identity))?;
            print!("{text}");
            Ok(())
        }
        LocalVerb::Psql { cluster, place, api_identity, arguments } => {
            let never = runtime.block_on(verbs::psql(
                &place.state(),
                api_identity,
                cluster.as_deref(),
                &arguments,
            ))?;
            match never {}
        }
        LocalVerb::Stop { place, timeout } => {
            let limit = std::time::Duration::from_secs(timeout);
            let pid = runtime.block_on(verbs::stop(&place.state(), limit))?;
            println!("stopped (process {pid})");
            Ok(())
        }
        LocalVerb::Api { wish, place } => {
            let paused = matches!(wish, ApiState::Pause);
            Ok(verbs::pause_api(&place.state(), paused)?)
        }
        LocalVerb::Plugin(verb) => {
            let (place, verb) = verb.into_parts();
            runtime.block_on(plugin::run_in(place, verb))
        }
    }
}
