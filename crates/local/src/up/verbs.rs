//! `status`, `psql`, `stop`: verbs for a `matriarch local` that runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, Client};
use matriarch_api::{Identity, names};
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep};

use super::clients::{self, AccessError};
use super::kubeconfig::{ConnectError, connect};
use super::progress::{self, ClusterView};
use crate::layout::{Layout, LayoutError};
use crate::postgres::InstalledServers;

/// Why a verb fails.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// Nobody runs, or cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The state directory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The API server does not answer.
    #[error("cannot read the clusters")]
    Read(#[source] Box<kube::Error>),
    /// There is no such cluster.
    #[error("there is no cluster {wanted}; there are: {known}")]
    NoCluster {
        /// The one asked for.
        wanted: String,
        /// Those that there are.
        known: String,
    },
    /// There are several clusters and none was named.
    #[error("name one of the clusters: {0}")]
    Several(String),
    /// A client has no way to connect.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// psql is not installed.
    #[error("psql is not installed: apt-get install postgresql-client")]
    NoPsql,
    /// psql does not start.
    #[error("cannot run {program}")]
    Psql {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The running one cannot be signalled.
    #[error("cannot signal process {pid}")]
    Signal {
        /// Its number.
        pid: i32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It did not stop in time.
    #[error("process {0} has not stopped yet; it goes on stopping")]
    StillRunning(i32),
}

/// The table of clusters and instances, with the processes that a person may want to kill.
pub async fn status(state: &Path, identity: Identity) -> Result<String, VerbError> {
    let (layout, client) = connect(state).await?;
    let failed = |source| VerbError::Read(Box::new(source));
    let clusters = progress::clusters(&client, identity).await.map_err(failed)?;
    let instances = progress::instances(&client, identity).await.map_err(failed)?;
    let mut text = String::new();
    if clusters.is_empty() {
        text.push_str("no clusters; make one with `kubectl apply -f FILE`\n");
    }
    for cluster in &clusters {
        text.push_str(&cluster.line());
        text.push('\n');
        for (name, line) in &instances {
            if names::serial_of(&cluster.name, name).is_none() {
                continue;
            }
            let pid = postmaster_of(&client, &layout, &cluster.namespace, name).await;
            let pid = pid.map_or_else(String::new, |pid| format!(" (postmaster: process {pid})"));
            text.push_str(&format!("  {line}{pid}\n"));
        }
        match clients::access(&client, &layout, cluster).await {
            Ok(access) => text.push_str(&format!("  psql \"{}\"\n", access.connection_string())),
            Err(error) => text.push_str(&format!("  {error}\n")),
        }
    }
    text.push_str(&format!("KUBECONFIG={}\n", layout.kubeconfig().display()));
    Ok(text)
}

/// The process of the primary's postmaster.
pub async fn postmaster(client: &Client, layout: &Layout, cluster: &ClusterView) -> Option<i32> {
    postmaster_of(client, layout, &cluster.namespace, &cluster.primary).await
}

async fn postmaster_of(
    client: &Client,
    layout: &Layout,
    namespace: &str,
    instance: &str,
) -> Option<i32> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get_opt(&names::data_claim(instance)).await.ok()??;
    let volume = layout.volumes().join(claim.spec?.volume_name?);
    let file = volume.join("pgdata/postmaster.pid");
    let pid: i32 = std::fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()?;
    // The file outlives a killed postmaster.
    let process = crate::processes::read(pid)?;
    process.directory?.starts_with(&volume).then_some(pid)
}

/// Replaces this process by psql, connected to the cluster's primary.
pub async fn psql(
    state: &Path,
    identity: Identity,
    cluster: Option<&str>,
    arguments: &[String],
) -> Result<std::convert::Infallible, VerbError> {
    use std::os::unix::process::CommandExt;
    let (layout, client) = connect(state).await?;
    let clusters = progress::clusters(&client, identity)
        .await
        .map_err(|source| VerbError::Read(Box::new(source)))?;
    let cluster = choose(&clusters, cluster)?;
    let access = clients::access(&client, &layout, cluster).await?;
    let servers = InstalledServers::find();
    let program = servers
        .newest()
        .and_then(|major| servers.programs(major).ok().map(|programs| programs.join("psql")))
        .filter(|program| program.exists())
        .or_else(|| Some(PathBuf::from("/usr/bin/psql")).filter(|program| program.exists()))
        .ok_or(VerbError::NoPsql)?;
    let mut command = std::process::Command::new(&program);
    command.arg(access.connection_string()).args(arguments);
    Err(VerbError::Psql { program, source: command.exec() })
}

fn choose<'a>(
    clusters: &'a [ClusterView],
    wanted: Option<&str>,
) -> Result<&'a ClusterView, VerbError> {
    let known = || clusters.iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", ");
    match (wanted, clusters) {
        (Some(wanted), _) => clusters
            .iter()
            .find(|cluster| cluster.name == wanted)
            .ok_or_else(|| VerbError::NoCluster { wanted: wanted.to_owned(), known: known() }),
        (None, [only]) => Ok(only),
        (None, _) => Err(VerbError::Several(known())),
    }
}

/// Asks the running one to stop, and waits.
pub async fn stop(state: &Path, limit: Duration) -> Result<i32, VerbError> {
    let layout = Layout::open(state)?;
    let pid = signal(&layout, Signal::TERM)?;
    let deadline = Instant::now() + limit;
    while layout.owner()? == Some(pid) {
        if Instant::now() >= deadline {
            return Err(VerbError::StillRunning(pid));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(pid)
}

/// `matriarch local api pause` and `resume`: the API server plays dead, or answers again.
///
/// # Errors
/// [`VerbError`] if nobody runs.
pub fn pause_api(state: &Path, paused: bool) -> Result<(), VerbError> {
    let signal = if paused { Signal::USR1 } else { Signal::USR2 };
    self::signal(&Layout::open(state)?, signal).map(|_| ())
}

fn signal(layout: &Layout, signal: Signal) -> Result<i32, VerbError> {
    let Some(pid) = layout.owner()? else {
        return Err(ConnectError::NotRunning(layout.root().to_owned()).into());
    };
    match Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, signal)) {
        Some(Err(error)) => Err(VerbError::Signal { pid, source: error.into() }),
        Some(Ok(())) | None => Ok(pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_cluster_need_not_be_named() {
        let view = |name: &str| ClusterView { name: name.to_owned(), ..ClusterView::default() };
        assert_eq!(choose(&[view("a")], None).unwrap().name, "a");
        let two = [view("a"), view("b")];
        assert_eq!(choose(&two, Some("b")).unwrap().name, "b");
        assert_eq!(choose(&two, None).unwrap_err().to_string(), "name one of the clusters: a, b");
        assert!(choose(&two, Some("c")).is_err());
    }
}
