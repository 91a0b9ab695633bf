//! `explain CLUSTER`: the operator's report in sentences.

use jiff::Timestamp;
use matriarch_api::Cluster;

use crate::error::Error;
use crate::observed::events;
use crate::session::{Connection, Session};
use crate::text::{age, print, time};

/// How many events are told.
const EVENTS: usize = 8;

/// Arguments of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The cluster.
    pub cluster: String,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// An event: when, reason, note.
pub type Told = (Option<Timestamp>, String, String);

/// Explains a cluster.
///
/// # Errors
/// If the Cluster cannot be read.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let cluster = session.cluster(&arguments.cluster).await?;
    let told = events(session, &arguments.cluster, EVENTS).await;
    let now = Timestamp::now();
    let mut text = render(&cluster, now);
    match told {
        Ok(told) => text.push_str(&happened(&told, now)),
        Err(error) => text.push_str(&format!("\nWhat happened last is not known: {error}\n")),
    }
    print(&text)
}

/// The report in sentences.
pub fn render(cluster: &Cluster, now: Timestamp) -> String {
    let name = cluster.name();
    let Some(status) = &cluster.status else {
        return format!(
            "Cluster {name} has no status: the operator has not looked at it yet, or does not run.\n"
        );
    };
    let mut text = String::new();
    let phase = status.phase.as_deref().unwrap_or("no phase");
    text.push_str(&format!("Cluster {name}: {phase}.\n"));
    if let Some(why) = status.phase_reason.as_deref().filter(|why| !why.is_empty()) {
        text.push_str(&format!("Because: {why}.\n"));
    }
    let generation = cluster.metadata.generation;
    if status.observed_generation != generation {
        text.push_str(
            "The operator has not yet looked at the latest change of the spec; what follows is \
             about the one before.\n",
        );
    }
    match (&status.current_primary, &status.target_primary) {
        (Some(primary), Some(target)) if primary != target => {
            text.push_str(&format!("{primary} is the primary, and {target} is to be it.\n"));
        }
        (Some(primary), _) => text.push_str(&format!("{primary} is the primary.\n")),
        (None, _) => text.push_str("There has been no primary yet.\n"),
    }
    waits(cluster, now, &mut text);
    match status.next_action.as_deref() {
        Some(next) => text.push_str(&format!("\nNext, the operator will: {next}.\n")),
        None => text.push_str("\nThe operator has nothing to do until something changes.\n"),
    }
    if !status.human_options.is_empty() {
        text.push_str("\nYou may:\n");
        for option in &status.human_options {
            let action = option.action.as_deref().unwrap_or_default();
            let consequence = option.consequence.as_deref().unwrap_or_default();
            text.push_str(&format!("- {action}\n  ({consequence})\n"));
        }
    }
    conditions(cluster, now, &mut text);
    text
}

fn waits(cluster: &Cluster, now: Timestamp, text: &mut String) {
    let Some(status) = &cluster.status else { return };
    if status.blocked_by.is_empty() {
        text.push_str("Nothing is waited for.\n");
        return;
    }
    text.push_str("\nIt waits for:\n");
    for blocked in &status.blocked_by {
        let message = blocked.message.as_deref().unwrap_or_default();
        let reason = blocked.reason.as_deref().unwrap_or_default();
        let since = blocked.since.as_deref().and_then(|since| since.parse::<Timestamp>().ok());
        let since = since.map_or(String::new(), |since| {
            format!(", for {}", age(now.as_second() - since.as_second()))
        });
        let object = blocked.object.as_ref().map_or(String::new(), |object| format!(", {object}"));
        text.push_str(&format!("- {message} ({reason}{object}{since})\n"));
    }
}

fn conditions(cluster: &Cluster, now: Timestamp, text: &mut String) {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    let lines: Vec<String> = conditions
        .map(|condition| {
            let since = age(now.as_second() - condition.last_transition_time.0.as_second());
            let message = if condition.message.is_empty() {
                String::new()
            } else {
                format!(": {}", condition.message)
            };
            let (kind, status, reason) = (&condition.type_, &condition.status, &condition.reason);
            format!("- {kind} is {status} ({reason}) for {since}{message}\n")
        })
        .collect();
    if !lines.is_empty() {
        text.push_str("\nConditions:\n");
        text.push_str(&lines.concat());
    }
}

/// The last events, oldest first.
pub fn happened(told: &[Told], now: Timestamp) -> String {
    if told.is_empty() {
        return "\nNo event of the last hour is kept.\n".to_owned();
    }
    let mut text = "\nWhat happened last:\n".to_owned();
    for (at, reason, note) in told {
        let when = at.map_or("at an unknown time".to_owned(), |at| {
            format!("{}, {} ago", time(at), age(now.as_second() - at.as_second()))
        });
        text.push_str(&format!("- {when}: {note} ({reason})\n"));
    }
    text
}
