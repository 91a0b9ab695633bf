//! `logs CLUSTER|INSTANCE [-f]`: the pods' logs in one stream, as the JSON lines that they are, or
//! as a person reads them.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use futures::{AsyncBufReadExt, StreamExt};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use matriarch_api::{Kind, names};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::session::{Connection, Session};
use crate::text::say;

mod line;

pub use line::{Line, pretty};

/// How often to look for new pods while following.
const LOOK: Duration = Duration::from_secs(2);
/// Lines that wait to be printed at most: a pod that writes faster is read more slowly.
const WAITING: usize = 1_024;

/// Arguments of `logs`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A cluster or an instance.
    pub name: String,
    /// Go on with what comes, new pods included.
    #[arg(short, long)]
    pub follow: bool,
    /// The last so many lines of each pod only.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<i64>,
    /// The form [default: pretty on a terminal, else json].
    #[arg(short, long, value_enum)]
    pub output: Option<Form>,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// The lines as they are.
    Json,
    /// Time, level, pod, logger, message.
    Pretty,
}

impl Form {
    fn of(self, line: &Line) -> String {
        match self {
            Self::Json => line.text.clone(),
            Self::Pretty => pretty(line),
        }
    }
}

/// Prints logs.
///
/// # Errors
/// If there is no such cluster or instance, or its logs may not be read.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let params = pods_of(session, &arguments.name).await?;
    let terminal = std::io::stdout().is_terminal();
    let form = arguments.output.unwrap_or(if terminal { Form::Pretty } else { Form::Json });
    if arguments.follow {
        follow(session, &params, arguments.tail, form).await
    } else {
        once(session, &params, arguments.tail, form).await
    }
}

/// Which pods: of a cluster, or the one of an instance.
async fn pods_of(session: &Session, name: &str) -> Result<ListParams, Error> {
    let resource = session.resource(Kind::Instance);
    let instance = session.instances().get_opt(name).await;
    let instance = instance.map_err(|error| session.refused("get", &resource, error))?;
    if instance.is_some() {
        return Ok(ListParams::default().fields(&format!("metadata.name={name}")));
    }
    session.cluster(name).await?;
    Ok(session.of(name))
}

/// Pods that have a database container: by name, their uid.
async fn pods(session: &Session, params: &ListParams) -> Result<BTreeMap<String, String>, Error> {
    let pods = session.pods().list(params).await;
    let pods = pods.map_err(|error| session.refused("list", "pods", error))?;
    let started = |pod: &&k8s_openapi::api::core::v1::Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.into_iter().flatten().any(|container| {
            container.name == names::POSTGRES_CONTAINER
                && container.state.as_ref().is_some_and(|state| state.waiting.is_none())
        })
    };
    let known = pods.items.iter().filter(started);
    Ok(known.map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect())
}

fn log_params(follow: bool, tail: Option<i64>, since: Option<Duration>) -> LogParams {
    LogParams {
        container: Some(names::POSTGRES_CONTAINER.to_owned()),
        follow,
        tail_lines: tail,
        since_seconds: since.and_then(|since| i64::try_from(since.as_secs()).ok()),
        ..LogParams::default()
    }
}

async fn once(
    session: &Session,
    params: &ListParams,
    tail: Option<i64>,
    form: Form,
) -> Result<(), Error> {
    let mut lines: Vec<Line> = Vec::new();
    for pod in pods(session, params).await?.into_keys() {
        let log = session.pods().logs(&pod, &log_params(false, tail, None)).await;
        let log = log.map_err(|error| session.refused("get", "pods/log", error))?;
        lines.extend(line::parse_all(&pod, &log));
    }
    // Stable: lines of one pod stay in their order where times are equal.
    lines.sort_by_key(|line| line.time);
    lines.iter().try_for_each(|line| say(&form.of(line)))
}

/// Follows all pods. A log that ends (the container restarted, the connection broke) is taken up
/// again from where it ended; pods that are made meanwhile join.
async fn follow(
    session: &Session,
    params: &ListParams,
    tail: Option<i64>,
    form: Form,
) -> Result<(), Error> {
    let (sender, mut receiver) = mpsc::channel::<Line>(WAITING);
    let mut readers: BTreeMap<String, (String, tokio::task::JoinHandle<Instant>)> = BTreeMap::new();
    let mut look = tokio::time::interval(LOOK);
    let mut first = true;
    loop {
        tokio::select! {
            Some(line) = receiver.recv() => say(&form.of(&line))?,
            _ = look.tick() => {
                for (pod, uid) in pods(session, params).await? {
                    let since = match readers.remove(&pod) {
                        Some(reader) if !reader.1.is_finished() => {
                            readers.insert(pod, reader);
                            continue;
                        }
                        Some((known, task)) if known == uid => {
                            task.await.ok().map(|ended| ended.elapsed() + Duration::from_secs(1))
                        }
                        Some(_) | None => None,
                    };
                    let tail = if first { tail } else { None };
                    let log = log_params(true, tail, since);
                    let task = tokio::spawn(read(session.clone(), pod.clone(), log, sender.clone()));
                    readers.insert(pod, (uid, task));
                }
                first = false;
            }
        }
    }
}

/// Reads one log until it ends; tells when.
async fn read(
    session: Session,
    pod: String,
    params: LogParams,
    sender: mpsc::Sender<Line>,
) -> Instant {
    let stream = match session.pods().log_stream(&pod, &params).await {
        Ok(stream) => stream,
        Err(error) => {
            let error = session.refused("get", "pods/log", error);
            eprintln!("{pod}: {}; trying again", matriarch_api::causes::chain(&error));
            return Instant::now();
        }
    };
    let mut lines = Box::pin(stream.lines());
    while let Some(Ok(text)) = lines.next().await {
        if sender.send(line::parse(&pod, &text)).await.is_err() {
            break;
        }
    }
    Instant::now()
}
