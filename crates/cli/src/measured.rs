//! What agents measure when they are asked, which stands in no object: by exec in a pod, or at the
//! agent's socket where pods are processes of this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::AttachParams;
use matriarch_api::causes::chain;
use matriarch_api::names;
use matriarch_api::statistics::{AGENT_SOCKET, LOCAL_DIRECTORY, Measured, Statistics};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;

use crate::session::Session;

/// How long an agent may take.
const LIMIT: Duration = Duration::from_secs(6);
/// An answer is a few kilobytes.
const MOST: u64 = 4 << 20;

/// Why an agent's figures are missing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot run `matriarch agent status` in the pod (this needs the right to pods/exec)")]
    Exec(#[source] Box<kube::Error>),
    #[error("cannot connect to the agent's socket (only the user that runs it may)")]
    Connect(#[source] std::io::Error),
    #[error("cannot read the agent's answer")]
    Read(#[source] std::io::Error),
    #[error("the agent's answer makes no sense")]
    Sense(#[source] serde_json::Error),
    #[error("the agent gave no answer within {LIMIT:?}")]
    Silent,
    #[error("{0}")]
    Unmeasured(String),
}

/// Asks the agents of all pods that run, at once: their figures, and why those of others are
/// missing.
pub async fn read(
    session: &Session,
    pods: &BTreeMap<String, Pod>,
) -> (BTreeMap<String, Statistics>, Vec<String>) {
    let asked = pods.values().filter(|pod| runs(pod)).map(|pod| async move {
        let answer = tokio::time::timeout(LIMIT, ask(session, pod)).await;
        (pod.name_any(), answer.unwrap_or(Err(Error::Silent)))
    });
    let (mut found, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok(statistics) => {
                found.insert(name, statistics);
            }
            Err(error) => errors.push(format!("{name}: no figures: {}", chain(&error))),
        }
    }
    (found, errors)
}

fn runs(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let running = statuses
        .filter(|status| status.name == names::POSTGRES_CONTAINER)
        .any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    running && pod.metadata.deletion_timestamp.is_none()
}

async fn ask(session: &Session, pod: &Pod) -> Result<Statistics, Error> {
    let text = match pod.annotations().get(LOCAL_DIRECTORY) {
        Some(directory) => {
            let path = Path::new(directory).join(AGENT_SOCKET);
            let stream = UnixStream::connect(path).await.map_err(Error::Connect)?;
            read_all(stream).await?
        }
        None => run_in(session, pod).await?,
    };
    let measured: Measured = serde_json::from_slice(&text).map_err(Error::Sense)?;
    let why = measured.unmeasured.unwrap_or_else(|| "it is of an older version".to_owned());
    measured.statistics.ok_or(Error::Unmeasured(why))
}

async fn run_in(session: &Session, pod: &Pod) -> Result<Vec<u8>, Error> {
    let command = [names::BINARY, "agent", "status", "--json"];
    let params = AttachParams::default()
        .container(names::POSTGRES_CONTAINER)
        .stdin(false)
        .stdout(true)
        .stderr(false);
    let running = session.pods().exec(&pod.name_any(), command, &params).await;
    let mut running = running.map_err(|error| Error::Exec(Box::new(error)))?;
    match running.stdout() {
        Some(output) => read_all(output).await,
        None => Ok(Vec::new()),
    }
}

async fn read_all(from: impl AsyncRead + Unpin) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    from.take(MOST).read_to_end(&mut text).await.map_err(Error::Read)?;
    Ok(text)
}
