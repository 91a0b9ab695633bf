//! Which processes belong to a data directory, and their end (traps H9).
//!
//! Every backend is its own session and group, and survives a killed postmaster for as long as its
//! statement runs. What they share is their working directory: the data directory. They are never
//! killed by group, which under `matriarch local` would end the user's session.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::root::Root;

/// A directory by what it is, not by what it is called: it may be renamed while processes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryId {
    device: u64,
    inode: u64,
}

impl DirectoryId {
    /// The identity of the directory at `path`.
    ///
    /// # Errors
    /// As `stat`.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

fn all() -> impl Iterator<Item = Pid> {
    std::fs::read_dir(Root::processes())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .filter_map(Pid::from_raw)
}

fn works_in(pid: Pid, directory: DirectoryId) -> bool {
    let link = Root::processes().join(pid.as_raw_nonzero().to_string()).join("cwd");
    DirectoryId::of(&link).is_ok_and(|found| found == directory)
}

/// State letter and parent of a process, from its `stat` file.
fn state_and_parent(pid: Pid) -> Option<(char, i32)> {
    let path = Root::processes().join(pid.as_raw_nonzero().to_string()).join("stat");
    let text = std::fs::read_to_string(path).ok()?;
    // The name in parentheses may contain anything; the fields begin after the last one.
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Living processes (zombies have no working directory) whose working directory is `directory`.
pub fn of_directory(directory: DirectoryId) -> impl Iterator<Item = Pid> {
    all().filter(move |pid| works_in(*pid, directory))
}

/// Is it the process that writes the server's log, by the title that it gives itself (`postgres:
/// NAME: logger`, with `cluster_name`)? It can write nothing else, and ends by itself once no other
/// process holds its pipe. One that has no title yet may become it.
pub fn may_be_logger(pid: Pid) -> bool {
    let path = Root::processes().join(pid.as_raw_nonzero().to_string()).join("cmdline");
    let title = std::fs::read(path).unwrap_or_default();
    let title = String::from_utf8_lossy(&title);
    let title = title.trim_end_matches(|it: char| it == '\0' || it.is_whitespace());
    !title.starts_with("postgres: ") || title.ends_with(": logger")
}

/// Does `pid` handle this signal by now? One that it does not would end it.
pub fn handles(pid: Pid, signal: Signal) -> bool {
    let path = Root::processes().join(pid.as_raw_nonzero().to_string()).join("status");
    std::fs::read_to_string(path).is_ok_and(|status| is_caught(&status, signal))
}

/// By the line `SigCgt` of a process's `status` file (proc_pid_status(5)).
fn is_caught(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(signal.as_raw() - 1).ok().and_then(|bit| 1_u64.checked_shl(bit));
    bit.is_some_and(|bit| mask & bit != 0)
}

/// Sends SIGKILL to every process of `directory` but those to be `spared`; true if there was one.
pub fn kill_directory(directory: DirectoryId, spared: impl Fn(Pid) -> bool) -> bool {
    let mut found = false;
    for pid in of_directory(directory).filter(|pid| !spared(*pid)) {
        found = true;
        // The number may have passed to another process since it was listed: hold it, look again.
        if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
            && works_in(pid, directory)
        {
            // Already gone is what is wanted.
            let _gone = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
    found
}

/// Sends SIGKILL to every child of this process that does not belong to `directory` and is not
/// `except`: helper programs that a dead agent left behind. True if there was one.
pub fn kill_orphans(directory: Option<DirectoryId>, except: Option<Pid>) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut found = false;
    for pid in all().filter(|pid| Some(*pid) != except) {
        let is_child = state_and_parent(pid)
            .is_some_and(|(state, parent)| parent == own && state != 'Z' && state != 'X');
        if is_child && !directory.is_some_and(|directory| works_in(pid, directory)) {
            found = true;
            // Only this process reaps its children, so the number cannot have passed on.
            let _gone = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handled_signals_are_those_of_the_mask() {
        let status = "Name:\tpostgres\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000014a06\n";
        let signals = [Signal::INT, Signal::QUIT, Signal::USR1, Signal::TERM, Signal::CHILD];
        assert!(signals.iter().all(|signal| is_caught(status, *signal)));
        assert!(!is_caught(status, Signal::HUP) && !is_caught(status, Signal::ALARM));
        assert!(!signals.iter().any(|signal| is_caught("Name:\tx\n", *signal)));
    }

    #[test]
    fn only_processes_of_the_directory_are_killed() {
        let directory = std::env::temp_dir().join(format!("matriarch-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let start = |cwd: &Path| {
            std::process::Command::new("sleep").arg("60").current_dir(cwd).spawn().unwrap()
        };
        let mut inside = start(&directory);
        let mut outside = start(&std::env::temp_dir());
        let id = DirectoryId::of(&directory).unwrap();
        let renamed = directory.with_extension("renamed");
        std::fs::rename(&directory, &renamed).unwrap();

        assert!(kill_directory(id, |_| false));
        assert!(!inside.wait().unwrap().success());
        assert!(outside.try_wait().unwrap().is_none());
        assert!(!kill_directory(id, |_| false));

        outside.kill().unwrap();
        outside.wait().unwrap();
        std::fs::remove_dir(&renamed).unwrap();
    }
}
