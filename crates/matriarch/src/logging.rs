//! Logs: JSON lines in pods, compact ones for people.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::arguments::Verb;

/// Starts logging to standard error (people) or standard output (pods).
pub fn start(verb: &Verb) {
    // The agent's log is PostgreSQL's too, and follows spec.logLevel.
    if matches!(verb, Verb::Agent { verb: None }) {
        return;
    }
    let default = match verb {
        // kube calls each request an error that is not answered; who asked says what that means.
        Verb::Operator(_) => "info,kube_client=off",
        // Progress lines tell people what they need; the log is for what is out of order.
        Verb::Keeper
        | Verb::Agent { .. }
        | Verb::Bootstrap { .. }
        | Verb::Local { .. }
        | Verb::Install { .. }
        | Verb::Plugin(_) => "warn",
    };
    let filter =
        EnvFilter::try_from_env("MATRIARCH_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let in_pod = matches!(verb, Verb::Operator(_)) && !std::io::stdout().is_terminal();
    if in_pod {
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_writer(std::io::stdout)
            .init();
    } else {
        tracing_subscriber::fmt()
            .compact()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .init();
    }
}
