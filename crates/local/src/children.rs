//! The processes that this one started itself.
//!
//! As the child subreaper it also gets orphans, which it reaps by number; the exit status of its
//! own children belongs to whoever started them (traps P1: a `waitpid(-1)` beside tokio lost 23 of
//! 50).

use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::process::Command;

static OURS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn ours() -> MutexGuard<'static, BTreeSet<i32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True if `pid` is a child that was started here and not yet waited for.
#[must_use]
pub fn is_ours(pid: i32) -> bool {
    ours().contains(&pid)
}

/// A child that was started here.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    pid: i32,
}

/// Starts `command`. It is known as ours before anybody could take it for an orphan.
pub fn start(command: &mut Command) -> io::Result<Child> {
    let mut known = ours();
    let process = command.spawn()?;
    let pid = process
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .ok_or_else(|| io::Error::other("the child has no process id"))?;
    known.insert(pid);
    Ok(Child { process, pid })
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end; safe to drop and call again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Not reaped yet: tokio's own orphan queue does it, and until then it stays ours.
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            ours().remove(&self.pid);
        }
    }
}
