//! One container as processes: start, probes, exit, restart with backoff, stop.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::environment::{self, References, expand};
use super::probes::{ProbeKind, Prober, Verdict};
use super::volumes::{self, Volumes};
use crate::children::{self, Child};
use crate::layout::make_directory;
use crate::processes::{self, Mark, ROOT_VARIABLE};

/// Kubernetes' delays between restarts: the first at once, then ten seconds, doubled up to five
/// minutes; forgotten after ten minutes of running.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
const BACKOFF_FORGOTTEN: Duration = Duration::from_secs(600);

/// How long killed processes may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// How a container ends for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Runs once, again after a failure; then the next may start.
    Init,
    /// Runs always.
    Main(Restart),
}

/// The pod's restartPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// A wish to stop; `deadline` is when SIGKILL comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) deadline: Instant,
}

/// What a container's processes see.
pub(super) struct Surroundings {
    pub(super) container: Container,
    pub(super) address: Ipv4Addr,
    pub(super) root: PathBuf,
    variables: BTreeMap<String, String>,
    shared: Arc<Shared>,
}

/// News of a container.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) index: usize,
    pub(super) status: ContainerStatus,
}

/// Supervises one container of a pod.
pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) duty: Duty,
    pub(super) index: usize,
    pub(super) address: Ipv4Addr,
    pub(super) volumes: Volumes,
    /// Directories that no other container of the pod works in.
    pub(super) own_directories: Vec<PathBuf>,
    pub(super) stop: watch::Receiver<Option<Stop>>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) status: ContainerStatus,
}

/// Why a container cannot be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{}", matriarch_api::causes::chain(.0))]
    Environment(#[source] environment::EnvironmentError),
    #[error("{}", matriarch_api::causes::chain(.0))]
    Volume(#[source] volumes::VolumeError),
    #[error("{0}")]
    Image(#[source] crate::postgres::PostgresError),
    #[error("the container has no command, and there is no image to take one from")]
    NoCommand,
    #[error("cannot start {program}: {source}")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot write the log {path}: {source}")]
    Log { path: PathBuf, source: io::Error },
}

impl StartError {
    /// The reason that kubelet gives for the like.
    fn reason(&self) -> &'static str {
        match self {
            Self::Environment(_) | Self::Volume(_) => "CreateContainerConfigError",
            Self::Image(_) => "ErrImagePull",
            Self::NoCommand | Self::Spawn { .. } | Self::Log { .. } => "RunContainerError",
        }
    }
}

/// How one run of the container ended.
enum Ending {
    Exited(ExitStatus),
    Stopped(Option<ExitStatus>),
    Unhealthy(Option<ExitStatus>),
}

impl Supervisor {
    /// Runs the container until it has ended for good or is stopped. True if it succeeded.
    pub(super) async fn run(mut self) -> bool {
        let mut backoff = Duration::ZERO;
        loop {
            if self.stop.borrow().is_some() {
                return false;
            }
            let began = Instant::now();
            let succeeded = match self.start().await {
                Ok((child, surroundings)) => match self.attend(child, surroundings).await {
                    Ending::Stopped(_) => return false,
                    Ending::Exited(status) => status.success(),
                    Ending::Unhealthy(_) => false,
                },
                Err(error) => {
                    self.wait_state(error.reason(), &error.to_string());
                    if self.pause(Duration::from_secs(2)).await {
                        return false;
                    }
                    continue;
                }
            };
            match self.duty {
                Duty::Init if succeeded => return true,
                Duty::Main(Restart::Never) => return succeeded,
                Duty::Main(Restart::OnFailure) if succeeded => return true,
                Duty::Init | Duty::Main(Restart::Always | Restart::OnFailure) => {}
            }
            if began.elapsed() > BACKOFF_FORGOTTEN {
                backoff = Duration::ZERO;
            }
            if !backoff.is_zero() {
                let text = format!("back-off {backoff:?} restarting container");
                self.wait_state("CrashLoopBackOff", &text);
                if self.pause(backoff).await {
                    return false;
                }
            }
            backoff = (backoff * 2).clamp(FIRST_BACKOFF, LONGEST_BACKOFF);
        }
    }

    /// True if the wish to stop came first.
    async fn pause(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = sleep(time) => false,
            () = stopped(&mut self.stop) => true,
        }
    }

    fn send(&self) {
        // The pod's worker outlives its supervisors except at the very end, when nobody reads.
        let _ = self.reports.send(Report { index: self.index, status: self.status.clone() });
    }

    fn wait_state(&mut self, reason: &str, message: &str) {
        let state = ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
            }),
            ..ContainerState::default()
        };
        let old = self.status.state.replace(state);
        if let Some(old) = old.filter(|old| old.terminated.is_some()) {
            self.status.last_state = Some(old);
        }
        self.status.ready = false;
        self.status.started = Some(false);
        self.send();
    }

    fn root(&self) -> PathBuf {
        let name = match self.duty {
            Duty::Init => format!("i{}", self.index),
            Duty::Main(_) => self.index.to_string(),
        };
        self.shared.layout.pod(self.pod.metadata.uid.as_deref().unwrap_or_default()).join(name)
    }

    fn mark(&self) -> Mark {
        let root = self.root();
        let mut directories = self.own_directories.clone();
        directories.push(root.clone());
        Mark { root, root_is_prefix: false, directories }
    }

    async fn start(&mut self) -> Result<(Child, Arc<Surroundings>), StartError> {
        let root = self.root();
        volumes::mount(&self.shared, &self.pod, &self.container, &root, &self.volumes)
            .map_err(StartError::Volume)?;
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let references = References::new(self.shared.client.clone(), namespace);
        let base = self.base_variables(&root)?;
        let variables = environment::resolve(&references, &self.pod, &self.container, base)
            .await
            .map_err(StartError::Environment)?;
        let surroundings = Arc::new(Surroundings {
            container: self.container.clone(),
            address: self.address,
            root,
            variables,
            shared: self.shared.clone(),
        });
        let words: Vec<String> = self.container.command.iter().flatten().cloned().collect();
        let arguments = self.container.args.iter().flatten().cloned();
        let words: Vec<String> = words.into_iter().chain(arguments).collect();
        let mut command = surroundings.command(&words).ok_or(StartError::NoCommand)?;
        let log = self.open_log()?;
        let second = log.try_clone();
        let path = self.log_path();
        let second = second.map_err(|source| StartError::Log { path, source })?;
        command.stdin(Stdio::null()).stdout(log).stderr(second);
        let program = PathBuf::from(command.as_std().get_program());
        let child = children::start(&mut command)
            .map_err(|source| StartError::Spawn { program, source })?;
        self.note_running();
        Ok((child, surroundings))
    }

    fn base_variables(&self, root: &Path) -> Result<BTreeMap<String, String>, StartError> {
        let image = self.container.image.as_deref().unwrap_or_default();
        let mut path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        if !self.shared.is_own_image(image) {
            let programs = self.shared.servers.for_image(image).map_err(StartError::Image)?;
            path = format!("{}:{path}", programs.display());
        }
        let user = self.shared.run_as.user();
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        let server = self.shared.api_server;
        let variables = [
            ("PATH", path),
            ("HOME", user.home.display().to_string()),
            ("USER", user.name.clone()),
            ("LOGNAME", user.name.clone()),
            ("HOSTNAME", name),
            ("TMPDIR", root.join("tmp").display().to_string()),
            ("LANG", "C.UTF-8".to_owned()),
            ("KUBERNETES_SERVICE_HOST", server.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", server.port().to_string()),
            ("KUBERNETES_SERVICE_PORT_HTTPS", server.port().to_string()),
            (ROOT_VARIABLE, root.display().to_string()),
        ];
        Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn log_path(&self) -> PathBuf {
        let metadata = &self.pod.metadata;
        self.shared.layout.log(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default(),
            &self.container.name,
        )
    }

    /// The container writes to the file itself, so it goes on when we are gone.
    fn open_log(&self) -> Result<fs::File, StartError> {
        let path = self.log_path();
        let directory = path.parent().unwrap_or(&path).to_owned();
        make_directory(&directory, 0o700)
            .and_then(|()| super::logs::set_aside(&path))
            .and_then(|()| OpenOptions::new().append(true).create(true).mode(0o600).open(&path))
            .map_err(|source| StartError::Log { path, source })
    }

    fn note_running(&mut self) {
        if self.status.container_id.is_some() {
            self.status.restart_count += 1;
        }
        let running = ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(Timestamp::now())) }),
            ..ContainerState::default()
        };
        let old = self.status.state.replace(running);
        if let Some(old) = old.filter(|old| old.terminated.is_some()) {
            self.status.last_state = Some(old);
        }
        self.status.container_id = Some(format!("process://{:032x}", rand::random::<u128>()));
        let container = &self.container;
        self.status.started =
            Some(matches!(self.duty, Duty::Init) || container.startup_probe.is_none());
        self.status.ready = container.startup_probe.is_none()
            && container.readiness_probe.is_none()
            && matches!(self.duty, Duty::Main(_));
        self.send();
    }

    /// Watches a running container until it has ended, with all its processes.
    async fn attend(&mut self, mut child: Child, surroundings: Arc<Surroundings>) -> Ending {
        let began = Timestamp::now();
        let ending = self.watch(&mut child, &surroundings).await;
        // As the end of a PID namespace would: nothing of the container outlives it.
        match processes::kill_all(&self.mark(), KILL_LIMIT).await {
            Ok(left) if left.is_empty() => {}
            Ok(left) => tracing::warn!(?left, "processes cannot be killed"),
            Err(error) => tracing::warn!(%error, "cannot look for processes"),
        }
        let status = match &ending {
            Ending::Exited(status) => Some(*status),
            Ending::Stopped(status) | Ending::Unhealthy(status) => *status,
        };
        self.note_terminated(began, status, &surroundings);
        ending
    }

    async fn watch(&mut self, child: &mut Child, surroundings: &Arc<Surroundings>) -> Ending {
        let mut stop = self.stop.clone();
        let probing = self.container.clone();
        let prober =
            |probe: &Option<_>| probe.clone().map(|probe| Prober::new(probe, surroundings.clone()));
        let mut startup = prober(&probing.startup_probe);
        let mut readiness = prober(&probing.readiness_probe);
        let mut liveness = prober(&probing.liveness_probe);
        loop {
            let starting = startup.is_some();
            let ready = self.status.ready;
            let (kind, verdict) = tokio::select! {
                status = child.wait() => {
                    let Ok(status) = status else { continue };
                    return Ending::Exited(status);
                }
                () = stopped(&mut stop) => {
                    return Ending::Stopped(self.terminate(child).await);
                }
                verdict = next(&mut startup, None), if starting => (ProbeKind::Startup, verdict),
                verdict = next(&mut readiness, Some(ready)), if !starting =>
                    (ProbeKind::Readiness, verdict),
                verdict = next(&mut liveness, Some(true)), if !starting =>
                    (ProbeKind::Liveness, verdict),
            };
            match (kind, verdict) {
                (ProbeKind::Startup, Verdict::Success) => {
                    startup = None;
                    self.status.started = Some(true);
                    self.status.ready = readiness.is_none();
                    self.send();
                }
                (ProbeKind::Readiness, verdict) => {
                    self.status.ready = verdict == Verdict::Success;
                    self.send();
                }
                (ProbeKind::Liveness, Verdict::Success) => {}
                (ProbeKind::Startup | ProbeKind::Liveness, Verdict::Failure(reason)) => {
                    let pod = self.pod.metadata.name.as_deref().unwrap_or_default();
                    tracing::warn!(
                        pod,
                        container = self.container.name,
                        ?kind,
                        reason,
                        "probe failed"
                    );
                    let grace = self.grace();
                    let deadline = Instant::now() + grace;
                    return Ending::Unhealthy(self.terminate_by(child, deadline).await);
                }
            }
        }
    }

    fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok());
        Duration::from_secs(seconds.unwrap_or(30))
    }

    async fn terminate(&mut self, child: &mut Child) -> Option<ExitStatus> {
        let now = Instant::now();
        let deadline = self.stop.borrow().map_or(now, |stop| stop.deadline);
        self.terminate_by(child, deadline).await
    }

    /// SIGTERM to the first process; SIGKILL to it at the deadline, which a later wish to stop may
    /// bring nearer.
    async fn terminate_by(&mut self, child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
        self.status.ready = false;
        self.send();
        if let Some(process) = processes::read(child.pid()) {
            processes::signal(&process, Signal::TERM);
        }
        let mut deadline = deadline;
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                status = child.wait() => return status.ok(),
                () = sleep_until(deadline) => break,
                changed = stop.changed() => {
                    if changed.is_err() { break }
                    if let Some(stop) = *stop.borrow() { deadline = deadline.min(stop.deadline); }
                }
            }
        }
        if let Some(process) = processes::read(child.pid()) {
            processes::signal(&process, Signal::KILL);
        }
        child.wait().await.ok()
    }

    fn note_terminated(
        &mut self,
        began: Timestamp,
        status: Option<ExitStatus>,
        surroundings: &Surroundings,
    ) {
        let signal = status.and_then(|status| status.signal());
        let exit_code = status
            .and_then(|status| status.code())
            .or_else(|| signal.map(|signal| 128 + signal))
            .unwrap_or(255);
        let terminated = ContainerStateTerminated {
            container_id: self.status.container_id.clone(),
            exit_code,
            signal,
            started_at: Some(Time(began)),
            finished_at: Some(Time(Timestamp::now())),
            reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
            message: surroundings.termination_message(exit_code, &self.log_path()),
        };
        self.status.state =
            Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() });
        self.status.ready = matches!(self.duty, Duty::Init) && exit_code == 0;
        self.status.started = Some(false);
        self.send();
    }
}

/// Waits for a wish to stop; a pod's worker that is gone is one.
async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) {
    let _ = stop.wait_for(Option::is_some).await;
}

async fn next(prober: &mut Option<Prober>, previous: Option<bool>) -> Verdict {
    match prober {
        Some(prober) => prober.next(previous).await,
        None => std::future::pending().await,
    }
}

impl Surroundings {
    /// A command as the container's processes run it; none without words.
    pub(super) fn command(&self, words: &[String]) -> Option<Command> {
        let words: Vec<String> = words.iter().map(|word| expand(word, &self.variables)).collect();
        let (program, arguments) = words.split_first()?;
        let mut command = Command::new(self.program(program));
        command.args(arguments).env_clear().envs(&self.variables).current_dir(&self.root);
        self.shared.drop_rights(&mut command);
        Some(command)
    }

    /// A program by the path that it has in the container: below the container's root; our own
    /// binary, which the image would hold; else what the machine has.
    fn program(&self, name: &str) -> PathBuf {
        let path = Path::new(name);
        if path.is_absolute() {
            let inside = self.root.join(name.trim_start_matches('/'));
            if inside.exists() {
                return inside;
            }
        }
        let own = path.file_name().is_some_and(|name| name == "matriarch");
        if own { self.shared.program.clone() } else { path.to_owned() }
    }

    /// Runs a command of an exec probe.
    pub(super) async fn execute(&self, words: &[String]) -> Result<(), String> {
        let mut command = self.command(words).ok_or("the probe has no command")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.kill_on_drop(true);
        let mut child = children::start(&mut command).map_err(|error| error.to_string())?;
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(status.to_string()) }
    }

    fn termination_message(&self, exit_code: i32, log: &Path) -> Option<String> {
        let path = self.container.termination_message_path.as_deref();
        let path = path.unwrap_or("/dev/termination-log").trim_start_matches('/');
        let written = fs::read_to_string(self.root.join(path)).unwrap_or_default();
        let fallback = self.container.termination_message_policy.as_deref()
            == Some("FallbackToLogsOnError")
            && exit_code != 0;
        let text = if written.is_empty() && fallback {
            crate::kubelet::logs::tail(log, 2048).unwrap_or_default()
        } else {
            written
        };
        (!text.is_empty()).then_some(text)
    }
}
