//! The files of an exchange: the agent's own, the next one, the former one, the one that failed.

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use matriarch_api::names::{BINARY_FAILED, BINARY_NEXT, BINARY_PREVIOUS};

use crate::root::Root;

/// How long a program may take to say its version.
const TRIAL_LIMIT: Duration = Duration::from_secs(10);
/// A file that was just written may still be open in a process that is about to start another
/// program: how often, and for how long each, that is waited for.
const BUSY: (u32, Duration) = (40, Duration::from_millis(50));

/// The agent's program and what stands beside it, all in one directory.
#[derive(Clone, Debug)]
pub struct Files {
    current: PathBuf,
}

impl Files {
    /// Those of this pod.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        Self { current: root.program() }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.current.with_extension(ending)
    }

    /// What the next agent is started from.
    #[must_use]
    pub fn current(&self) -> &Path {
        &self.current
    }

    /// Fetched and not in use yet.
    #[must_use]
    pub fn next(&self) -> PathBuf {
        self.beside(BINARY_NEXT)
    }

    /// The former one, as long as the present one is on trial.
    #[must_use]
    pub fn previous(&self) -> PathBuf {
        self.beside(BINARY_PREVIOUS)
    }

    /// One that the keeper took back.
    #[must_use]
    pub fn failed(&self) -> PathBuf {
        self.beside(BINARY_FAILED)
    }

    /// Is the present one on trial: there is a former one to go back to.
    #[must_use]
    pub fn on_trial(&self) -> bool {
        self.previous().exists()
    }

    /// Puts the next one into the place of the present one, which is kept. At every moment the
    /// place holds one of the two, whole.
    ///
    /// # Errors
    /// If files cannot be linked or renamed; then all is as before.
    pub fn exchange(&self) -> Result<()> {
        let previous = self.previous();
        remove(&previous)?;
        fs::hard_link(&self.current, &previous)?;
        if let Err(error) = fs::rename(self.next(), &self.current) {
            remove(&previous)?;
            return Err(error);
        }
        self.sync()
    }

    /// The trial is over: there is no way back any more, and no need.
    ///
    /// # Errors
    /// If the former one cannot be removed.
    pub fn settle(&self) -> Result<()> {
        remove(&self.previous())
    }

    /// Takes the former one back and keeps the failed one for whoever reads its hash. False if none
    /// is on trial.
    ///
    /// # Errors
    /// If files cannot be renamed.
    pub fn go_back(&self) -> Result<bool> {
        if !self.on_trial() {
            return Ok(false);
        }
        let failed = self.failed();
        // Without it nobody learns which one it was, and the way back is what counts.
        let _kept = remove(&failed).and_then(|()| fs::hard_link(&self.current, &failed));
        fs::rename(self.previous(), &self.current)?;
        self.sync()?;
        Ok(true)
    }

    /// Its hash stands in the notes now.
    pub fn forget_failed(&self) {
        if let Err(error) = remove(&self.failed()) {
            tracing::warn!(%error, "cannot remove the program that failed");
        }
    }

    fn sync(&self) -> Result<()> {
        let directory = self.current.parent().ok_or(ErrorKind::InvalidInput)?;
        fs::File::open(directory)?.sync_all()
    }
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Has the program say its version, to see that it runs here at all.
///
/// # Errors
/// If it does not, or not in time.
pub async fn try_out(program: &Path) -> std::result::Result<(), super::Error> {
    let run = async {
        let mut attempts = 0;
        loop {
            let mut command = tokio::process::Command::new(program);
            command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
            match command.output().await {
                Err(error) if is_busy(&error) && attempts < BUSY.0 => {
                    attempts += 1;
                    tokio::time::sleep(BUSY.1).await;
                }
                outcome => return outcome,
            }
        }
    };
    let output = tokio::time::timeout(TRIAL_LIMIT, run)
        .await
        .map_err(|_| super::Error::Slow(TRIAL_LIMIT))?
        .map_err(|error| super::Error::DoesNotRun(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = format!("--version ended with {}: {}", output.status, words.trim());
        return Err(super::Error::DoesNotRun(words));
    }
    if !said.starts_with("matriarch ") {
        let said: String = said.chars().take(80).collect();
        let words = format!("--version said {said:?}, which is not Matriarch's");
        return Err(super::Error::DoesNotRun(words));
    }
    Ok(())
}

fn is_busy(error: &Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::TXTBSY.raw_os_error())
}
