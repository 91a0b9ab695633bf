//! The file that the agent runs from, and its exchange for another while PostgreSQL runs on (traps
//! P3, docs/decisions/agent-upgrade.md).
//!
//! The agent fetches the new file beside its own, tries it out and puts it into its own place, then
//! ends; the keeper starts the next agent from there. Until that one has lived for a while the
//! former file is kept, and the keeper takes it back if the new agent dies again and again.

pub mod exchange;
pub mod fetch;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use matriarch_api::instance::{AgentBinary, AgentFailure};
use matriarch_api::reasons::binary as reasons;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::root::Root;
use exchange::Files;

/// What a new agent that begins finds out about files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// SHA-256 of the file that it runs from; none if it cannot be read.
    pub own: Option<String>,
    /// The last binary that this container gave up.
    pub refused: Option<AgentFailure>,
}

/// SHA-256 of a file, hexadecimal. Reads it piece by piece: its size is that of the whole agent.
///
/// # Errors
/// If it cannot be read.
pub fn hash_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(hexadecimal(&hash.finalize()));
        }
        hash.update(&buffer[..length]);
    }
}

/// Hexadecimal, lower case.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what this process runs from, and takes note of a binary that the keeper took back.
#[must_use]
pub fn look(root: &Root) -> Found {
    let files = Files::new(root);
    if let Ok(sha256) = hash_of(&files.failed()) {
        let failure = AgentFailure {
            sha256,
            reason: reasons::DIED.to_owned(),
            message:
                "the agent that ran from it died again and again, or said nothing; the former \
                      one is back. It is not tried again in this pod: see the pod's log, and roll \
                      the operator back or forward"
                    .to_owned(),
        };
        refuse(root, &failure);
        files.forget_failed();
    }
    Found { own: hash_of(&Root::own_program()).ok(), refused: refused(root) }
}

#[derive(Serialize, Deserialize)]
struct Refused {
    sha256: String,
    reason: String,
    message: String,
}

/// Takes note of a binary that is not to be tried again by this agent or the next.
pub fn refuse(root: &Root, failure: &AgentFailure) {
    let refused = Refused {
        sha256: failure.sha256.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
    };
    let bytes = serde_json::to_vec(&refused).unwrap_or_default();
    if let Err(error) = crate::postgres::data::write_atomically(&root.refused_binary(), &bytes) {
        tracing::warn!(
            error = matriarch_api::causes::chain(&error),
            "cannot take note of a binary that is not to be tried again"
        );
    }
}

fn refused(root: &Root) -> Option<AgentFailure> {
    let bytes = std::fs::read(root.refused_binary()).ok()?;
    let Refused { sha256, reason, message } = serde_json::from_slice(&bytes).ok()?;
    Some(AgentFailure { sha256, reason, message })
}

/// Why a binary is not run from, and whether it is worth another attempt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is for other processors.
    #[error(
        "it is for {offered} and this machine is {}: the operator serves the binary of its own \
         architecture alone; run the operator on that of the databases, or replace the pods",
        std::env::consts::ARCH
    )]
    Architecture {
        /// For which it is.
        offered: String,
    },
    /// Fetching.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// It does not run here.
    #[error("the new program does not run in this container: {0}")]
    DoesNotRun(String),
    /// It may run, but did not say so in time.
    #[error("the new program did not say its version within {0:?}")]
    Slow(Duration),
    /// It cannot be put into place.
    #[error("cannot put the new program into place")]
    Exchange(#[source] std::io::Error),
}

impl Error {
    /// One of `matriarch_api::reasons::binary`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Architecture { .. } => reasons::OTHER_ARCHITECTURE,
            Self::Fetch(fetch::Error::Content { .. }) => reasons::WRONG_CONTENT,
            Self::Fetch(fetch::Error::Store { .. }) | Self::Exchange(_) => reasons::NOT_STORED,
            Self::Fetch(_) => reasons::NOT_FETCHED,
            Self::DoesNotRun(_) | Self::Slow(_) => reasons::DOES_NOT_RUN,
        }
    }

    /// False if the same file will fare no better.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Architecture { .. } | Self::DoesNotRun(_) => false,
            Self::Fetch(_) | Self::Slow(_) | Self::Exchange(_) => true,
        }
    }
}

/// Brings the binary beside the own one, whole and tried out, ready for [`Files::exchange`].
///
/// # Errors
/// If it does not come, is not what the directive names, or does not run here. Then nothing of it
/// is left.
pub async fn prepare(root: &Root, binary: &AgentBinary) -> Result<(), Error> {
    if binary.architecture != std::env::consts::ARCH {
        return Err(Error::Architecture { offered: binary.architecture.clone() });
    }
    let next = Files::new(root).next();
    let prepared = async {
        fetch::fetch(binary, &next).await?;
        exchange::try_out(&next).await
    };
    let outcome = prepared.await;
    if outcome.is_err() {
        // What is not there need not be removed, and the next attempt writes over it.
        let _gone = std::fs::remove_file(&next);
    }
    outcome
}

#[cfg(test)]
mod tests;
