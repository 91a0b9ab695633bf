//! Which processes belong to a container, and ending all of them.
//!
//! There is no PID namespace around a container here, so its processes are found by what they
//! cannot easily shed: the root directory in their environment, a working directory inside the
//! container's directories, or a parent that is one of them. Never by process group or session:
//! each PostgreSQL backend has its own, and killing by group would end the user's session
//! (traps H9).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use tokio::time::{Instant, sleep};

/// The environment variable that names a container's root directory.
pub const ROOT_VARIABLE: &str = "MATRIARCH_ROOT";

/// PostgreSQL's programs that run inside a data directory. A person's shell or psql whose working
/// directory happens to be there is none of the container's.
const SERVER_PROGRAMS: [&str; 8] = [
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_rewind",
    "pg_ctl",
    "pg_checksums",
    "pg_resetwal",
    "matriarch",
];

/// What a container's processes have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Value of [`ROOT_VARIABLE`]; a prefix of it, if `root_is_prefix`.
    pub root: PathBuf,
    /// True to match every container below `root` (leftovers of an earlier run).
    pub root_is_prefix: bool,
    /// Directories (canonical paths) that only this container works in.
    pub directories: Vec<PathBuf>,
}

/// A process as it was seen; the start time tells it from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Parent's process id.
    pub parent: i32,
    /// Clock ticks between boot and its start.
    pub started: u64,
    /// True if it has ended and waits for its parent.
    pub zombie: bool,
    /// File name of the program, if it can be read.
    pub program: String,
    /// Working directory, if it can be read.
    pub directory: Option<PathBuf>,
}

/// All processes of `mark`, zombies left out, this process left out.
pub fn find(mark: &Mark) -> io::Result<Vec<Process>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
            && let Some(process) = read(pid)
        {
            all.insert(pid, process);
        }
    }
    let mut found: BTreeSet<i32> = all
        .values()
        .filter(|process| process.pid > 1 && process.pid != own && belongs(process, mark))
        .map(|process| process.pid)
        .collect();
    loop {
        let children: Vec<i32> = all
            .values()
            .filter(|process| {
                process.pid != own
                    && !found.contains(&process.pid)
                    && found.contains(&process.parent)
            })
            .map(|process| process.pid)
            .collect();
        if children.is_empty() {
            break;
        }
        found.extend(children);
    }
    Ok(all.into_values().filter(|p| found.contains(&p.pid) && !p.zombie).collect())
}

/// Reads one process from /proc; none if it is gone.
#[must_use]
pub fn read(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself contain spaces and parentheses.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let program = fs::read_link(format!("/proc/{pid}/exe"))
        .ok()
        .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .map(|name| name.trim_end_matches(" (deleted)").to_owned())
        .unwrap_or_default();
    Some(Process { pid, parent, started, zombie: state == "Z" || state == "X", program, directory })
}

fn belongs(process: &Process, mark: &Mark) -> bool {
    if process.zombie {
        return false;
    }
    if let Some(directory) = &process.directory {
        let text = directory.to_string_lossy();
        let directory = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text));
        if SERVER_PROGRAMS.contains(&process.program.as_str())
            && mark.directories.iter().any(|own| directory.starts_with(own))
        {
            return true;
        }
    }
    environment_root(process.pid).is_some_and(|root| {
        if mark.root_is_prefix { root.starts_with(&mark.root) } else { root == mark.root }
    })
}

/// PostgreSQL's backends overwrite theirs with their title, so its absence says nothing.
fn environment_root(pid: i32) -> Option<PathBuf> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let text = std::str::from_utf8(entry).ok()?;
        let value = text.strip_prefix(ROOT_VARIABLE)?.strip_prefix('=')?;
        Some(PathBuf::from(value))
    })
}

/// Sends `signal` to exactly the process that was seen, never to a later one with its number.
pub fn signal(process: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    if read(process.pid).is_some_and(|now| now.started == process.started) {
        // An error means that it has ended meanwhile, which is what was wanted.
        let _ = rustix::process::pidfd_send_signal(handle, signal);
    }
}

/// Kills every process of `mark` and waits until none is left. Returns those that are still there
/// at the end of `limit` (in uninterruptible sleep, or another user's).
pub async fn kill_all(mark: &Mark, limit: Duration) -> io::Result<Vec<Process>> {
    let deadline = Instant::now() + limit;
    loop {
        let left = find(mark)?;
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left);
        }
        for process in &left {
            signal(process, Signal::KILL);
        }
        reap_orphans(&left);
        sleep(Duration::from_millis(5)).await;
        reap_orphans(&left);
    }
}

/// Waits for those of `processes` that were orphaned and came to us as the child subreaper: an
/// unreaped postmaster makes the next start fail ("lock file … already exists", traps H9).
///
/// Children that this process started itself must not be among them.
pub fn reap_orphans(processes: &[Process]) {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for process in processes {
        let adopted = read(process.pid)
            .is_some_and(|now| now.started == process.started && now.parent == own && now.zombie);
        if adopted && !crate::children::is_ours(process.pid) {
            let _ = rustix::process::waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG);
        }
    }
}

/// Reaps every zombie that came to us as the child subreaper.
pub fn reap_adopted() -> io::Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut adopted = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
            && let Some(process) = read(pid)
            && process.parent == own
            && process.zombie
        {
            adopted.push(process);
        }
    }
    reap_orphans(&adopted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("matriarch-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path.canonicalize().unwrap()
    }

    /// Started as a kubelet's: its own waiter collects it, nobody else.
    fn sleeper(root: &Path) -> crate::children::Child {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", "sleep 60 & wait"]).env(ROOT_VARIABLE, root).stdin(Stdio::null());
        crate::children::start(&mut command).unwrap()
    }

    #[tokio::test]
    async fn everything_of_a_container_ends_and_nothing_else() {
        let root = scratch("mark");
        let mut own = sleeper(&root.join("0"));
        let mut other = sleeper(&root.join("1"));
        sleep(Duration::from_millis(100)).await;
        let mark = Mark { root: root.join("0"), ..Mark::default() };
        assert_eq!(find(&mark).unwrap().len(), 2, "the shell and its child");
        let everything = Mark { root: root.clone(), root_is_prefix: true, directories: vec![] };
        assert_eq!(find(&everything).unwrap().len(), 4);
        let left = kill_all(&mark, Duration::from_secs(5)).await.unwrap();
        assert_eq!(left, []);
        assert!(!own.wait().await.unwrap().success());
        let goes_on = tokio::time::timeout(Duration::from_millis(50), other.wait()).await.is_err();
        assert!(goes_on, "the other container goes on");
        kill_all(&everything, Duration::from_secs(5)).await.unwrap();
        other.wait().await.unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn a_persons_shell_in_the_directory_is_left_alone() {
        let root = scratch("shell");
        let mut shell = Command::new("sleep").arg("60").current_dir(&root).spawn().unwrap();
        let mark = Mark {
            root: root.join("none"),
            root_is_prefix: false,
            directories: vec![root.clone()],
        };
        sleep(Duration::from_millis(50)).await;
        assert_eq!(find(&mark).unwrap(), []);
        shell.kill().unwrap();
        shell.wait().unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_signal_reaches_only_the_process_that_was_seen() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut seen = read(i32::try_from(child.id()).unwrap()).unwrap();
        seen.started += 1;
        signal(&seen, Signal::KILL);
        std::thread::sleep(Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
