//! Processes of an earlier run that was killed: asked to stop, then killed, before anything starts.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::layout::Layout;
use crate::processes::{self, Mark, Process};

/// How long they may take to stop by themselves.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of the leftovers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Processes that there were.
    pub found: usize,
    /// Processes that had to be killed.
    pub killed: usize,
}

/// Why the leftovers are still there.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The processes of this machine cannot be listed.
    #[error("cannot list the processes of this machine")]
    List(#[source] io::Error),
    /// Some do not end.
    #[error(
        "processes of an earlier run do not end even when killed: {0:?}; they wait for a device \
         or belong to another user"
    )]
    Immortal(Vec<i32>),
}

/// What every process of a state directory has in common.
#[must_use]
pub fn mark(layout: &Layout) -> Mark {
    Mark {
        root: layout.pods(),
        root_is_prefix: true,
        directories: vec![layout.pods(), layout.volumes()],
    }
}

/// Ends every process of an earlier run on this state directory. `tell` is called once with their
/// number, before the wait.
pub async fn clear(layout: &Layout, tell: impl FnOnce(usize)) -> Result<Cleared, LeftoverError> {
    let mark = mark(layout);
    let found = processes::find(&mark).map_err(LeftoverError::List)?;
    if found.is_empty() {
        return Ok(Cleared::default());
    }
    tell(found.len());
    for process in &found {
        if let Some(signal) = polite_signal(process, &found) {
            processes::signal(process, signal);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut left = found.clone();
    while !left.is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
        processes::reap_orphans(&found);
        left = processes::find(&mark).map_err(LeftoverError::List)?;
    }
    let cleared = Cleared { found: found.len(), killed: left.len() };
    let immortal = processes::kill_all(&mark, PATIENCE).await.map_err(LeftoverError::List)?;
    if immortal.is_empty() {
        return Ok(cleared);
    }
    Err(LeftoverError::Immortal(immortal.into_iter().map(|process| process.pid).collect()))
}

/// SIGTERM to whatever started the others (the keepers); SIGINT, which is a fast shutdown, to a
/// postmaster whose keeper is gone: on SIGTERM it would wait for its clients.
fn polite_signal(process: &Process, all: &[Process]) -> Option<Signal> {
    if all.iter().any(|other| other.pid == process.parent) {
        return None;
    }
    if is_postmaster(process) { Some(Signal::INT) } else { Some(Signal::TERM) }
}

fn is_postmaster(process: &Process) -> bool {
    let file = process.directory.as_ref().map(|directory| directory.join("postmaster.pid"));
    file.and_then(first_line).is_some_and(|line| line == process.pid.to_string())
}

fn first_line(path: PathBuf) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn what_an_earlier_run_left_behind_ends_before_anything_starts() {
        let path = std::env::temp_dir().join(format!("m-left-{}", std::process::id()));
        let layout = Layout::make(&path).unwrap();
        let root = layout.pod("uid").join("0");
        let mut polite = Command::new("sleep")
            .arg("60")
            .env(processes::ROOT_VARIABLE, &root)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(50)).await;
        let mut told = 0;
        let waiter = std::thread::spawn(move || polite.wait().unwrap());
        let cleared = clear(&layout, |count| told = count).await.unwrap();
        assert_eq!((told, cleared), (1, Cleared { found: 1, killed: 0 }));
        assert!(!waiter.join().unwrap().success());
        assert_eq!(clear(&layout, |_| ()).await.unwrap(), Cleared::default());
        std::fs::remove_dir_all(path).unwrap();
    }
}
