//! Finding and running PostgreSQL's programs.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use matriarch_pg::{Major, Version};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::root::Root;

/// How long `postgres --version` may take.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// Lines of a failed program's output that are kept for the report.
const KEPT_LINES: usize = 20;

/// One installation of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Directory of the programs.
    pub directory: PathBuf,
    /// What `postgres --version` says.
    pub version: Version,
}

/// Why a program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None is installed.
    #[error(
        "PostgreSQL's server programs are not installed: no postgres and initdb in PATH, \
         /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin or /usr/local/bin"
    )]
    NotInstalled,
    /// None of the right major version.
    #[error(
        "the data directory is of PostgreSQL {wanted}, but only {found} is installed: \
         use an image of major version {wanted}"
    )]
    WrongMajor {
        /// The data directory's.
        wanted: u32,
        /// Those that are there.
        found: String,
    },
    /// It could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{program} has not ended within {} s", limit.as_secs())]
    Limit {
        /// The program.
        program: String,
        /// The limit.
        limit: Duration,
    },
    /// It failed.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        output: String,
    },
}

impl Installation {
    /// The program of that name.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The programs without which an installation is of no use.
const NEEDED: [&str; 4] = ["postgres", "initdb", "pg_basebackup", "pg_rewind"];

/// All installations in the order of preference: `PATH` first, then the usual directories, newest
/// first.
pub async fn installations(path: &OsStr) -> Vec<Installation> {
    let mut found: Vec<Installation> = Vec::new();
    for directory in std::env::split_paths(path).chain(Root::program_directories()) {
        let program = directory.join("postgres");
        if !program.is_file() {
            continue;
        }
        // Links to a few of the programs lie in PATH, the rest where they point to.
        let target = program.canonicalize().ok().and_then(|it| Some(it.parent()?.to_path_buf()));
        let Some(directory) =
            [Some(directory), target].into_iter().flatten().find(|it| is_whole(it))
        else {
            tracing::warn!(program = %program.display(), needed = ?NEEDED, "not all programs");
            continue;
        };
        let program = directory.join("postgres");
        let known = found.iter().any(|one| same_file(&one.program("postgres"), &program));
        if known {
            continue;
        }
        match version_of(&program).await {
            Ok(version) => found.push(Installation { directory, version }),
            Err(error) => tracing::warn!(program = %program.display(), %error, "not usable"),
        }
    }
    found
}

fn is_whole(directory: &Path) -> bool {
    NEEDED.iter().all(|name| directory.join(name).is_file())
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[derive(Debug, thiserror::Error)]
enum VersionFailure {
    #[error("cannot run it")]
    Run(#[source] std::io::Error),
    #[error("it does not answer")]
    Limit,
    #[error(transparent)]
    Answer(matriarch_pg::version::VersionError),
}

async fn version_of(program: &Path) -> Result<Version, VersionFailure> {
    let run = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_LIMIT, run)
        .await
        .map_err(|_| VersionFailure::Limit)?
        .map_err(VersionFailure::Run)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().map_err(VersionFailure::Answer)
}

/// Chooses the installation for a data directory of `major`, or the preferred one.
///
/// # Errors
/// If there is none.
pub fn choose(
    mut installations: Vec<Installation>,
    major: Option<u32>,
) -> Result<Installation, Error> {
    let found: Vec<String> =
        installations.iter().map(|one| one.version.major.number().to_string()).collect();
    let index = match major {
        None => (!installations.is_empty()).then_some(0),
        Some(wanted) => installations.iter().position(|one| one.version.major.number() == wanted),
    };
    match (index, major) {
        (Some(index), _) => Ok(installations.swap_remove(index)),
        (None, Some(wanted)) if !found.is_empty() => {
            Err(Error::WrongMajor { wanted, found: found.join(", ") })
        }
        (None, _) => Err(Error::NotInstalled),
    }
}

/// True if `major` is one of those that the agent handles.
#[must_use]
pub fn is_handled(major: u32) -> bool {
    Major::ALL.iter().any(|one| one.number() == major)
}

/// A program to run to its end, its output going to the log line by line.
#[derive(Debug)]
pub struct Run {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    limit: Duration,
}

impl Run {
    /// The program, to be ended after `limit`.
    #[must_use]
    pub fn new(program: PathBuf, limit: Duration) -> Self {
        Self { program, arguments: Vec::new(), environment: Vec::new(), limit }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs it and gives the end of what it said. If the future is dropped, the program is killed.
    ///
    /// # Errors
    /// If it cannot be started, fails or takes too long.
    pub async fn run(self) -> Result<String, Error> {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (reader, writer) =
            std::io::pipe().map_err(|source| Error::Start { program: name.clone(), source })?;
        let start_error = |source| Error::Start { program: name.clone(), source };
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("LC_MESSAGES", "C")
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(start_error)?)
            .stderr(writer)
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(start_error)?;
        let group = Group::of(&child);
        // The command holds writing ends of the pipe.
        drop(command);
        let kept = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let reading = tokio::spawn(forward(name.clone(), reader.into(), kept.clone()));
        let status = match tokio::time::timeout(self.limit, child.wait()).await {
            Ok(status) => status.map_err(start_error)?,
            Err(_) => {
                drop(group);
                // A failure to kill means that it has ended.
                let _ended = child.kill().await;
                return Err(Error::Limit { program: name, limit: self.limit });
            }
        };
        group.ended();
        // A grandchild may keep the pipe open; what it says later is not part of the answer.
        let _late = tokio::time::timeout(Duration::from_millis(500), reading).await;
        let output = kept.lock().map(|lines| lines.join("; ")).unwrap_or_default();
        if status.success() {
            return Ok(output);
        }
        Err(Error::Failed { program: name, status, output })
    }
}

/// A program with the programs that it has started, killed together: an initdb that is killed
/// alone leaves a `postgres --boot` that goes on writing into the directory.
struct Group(Option<rustix::process::Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(rustix::process::Pid::from_raw))
    }

    /// The first process has been waited for: its number may be another's by now.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // A failure to kill means that it has ended.
            let _ended = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

async fn forward(
    name: String,
    reader: std::os::fd::OwnedFd,
    kept: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
) {
    let Ok(pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(reader) else { return };
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.trim().is_empty() {
            continue;
        }
        tracing::info!(program = name, "{line}");
        if let Ok(mut kept) = kept.lock() {
            kept.push(line);
            if kept.len() > KEPT_LINES {
                kept.remove(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(text: &str) -> Installation {
        Installation { directory: text.into(), version: text.parse().unwrap() }
    }

    #[test]
    fn the_major_version_of_the_data_directory_decides() {
        let both = vec![installation("17.6"), installation("15.18")];
        assert_eq!(choose(both.clone(), None).unwrap(), installation("17.6"));
        assert_eq!(choose(both.clone(), Some(15)).unwrap(), installation("15.18"));
        let error = choose(both, Some(16)).unwrap_err().to_string();
        assert!(error.contains("PostgreSQL 16") && error.contains("17, 15"), "{error}");
        assert!(matches!(choose(Vec::new(), Some(16)), Err(Error::NotInstalled)));
        assert!(matches!(choose(Vec::new(), None), Err(Error::NotInstalled)));
    }

    #[tokio::test]
    async fn links_to_some_programs_lead_to_all_of_them() {
        let base = std::env::temp_dir().join(format!("matriarch-programs-{}", std::process::id()));
        let (real, links) = (base.join("real"), base.join("links"));
        for directory in [&real, &links] {
            std::fs::create_dir_all(directory).unwrap();
        }
        for name in NEEDED {
            let script = "#!/bin/sh\necho 'postgres (PostgreSQL) 15.18'\n";
            std::fs::write(real.join(name), script).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(real.join(name), mode).unwrap();
        }
        for name in ["postgres", "initdb"] {
            std::os::unix::fs::symlink(real.join(name), links.join(name)).unwrap();
        }
        let found = installations(links.as_os_str()).await;
        assert_eq!(found[0].directory, real.canonicalize().unwrap());
        std::fs::remove_dir_all(base).unwrap();
    }

    #[tokio::test]
    async fn a_failing_program_is_reported_in_its_own_words() {
        let run = Run::new("/bin/sh".into(), Duration::from_secs(5))
            .args(["-c", "echo it is full >&2; exit 3"]);
        let error = run.run().await.unwrap_err().to_string();
        assert!(error.contains("it is full") && error.contains('3'), "{error}");
        let slow = Run::new("/bin/sleep".into(), Duration::from_millis(50)).arg("60");
        assert!(matches!(slow.run().await, Err(Error::Limit { .. })));
    }

    #[tokio::test]
    async fn what_an_interrupted_program_has_started_is_killed_with_it() {
        let file = std::env::temp_dir().join(format!("matriarch-group-{}", std::process::id()));
        let script = format!("(while sleep 0.02; do echo >> {0}; done) & wait", file.display());
        let run = Run::new("/bin/sh".into(), Duration::from_secs(60)).args(["-c", &script]);
        let writes = async || {
            let before = std::fs::metadata(&file).map_or(0, |it| it.len());
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::metadata(&file).map_or(0, |it| it.len()) > before
        };
        tokio::select! {
            ended = run.run() => panic!("{ended:?}"),
            () = async { while !writes().await {} } => {}
        }
        assert!(!writes().await, "the loop goes on");
        std::fs::remove_file(file).unwrap();
    }
}
