//! pg_rewind: a former primary becomes a standby again without a whole copy.

use std::time::Duration;

use super::clone::Source;
use super::data;
use super::program::{self, Installation, Run};
use crate::root::Root;

/// How long a rewind may take.
const REWIND_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Why the directory could not be rewound.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume.
    #[error("cannot prepare the data volume")]
    Volume(#[source] data::Error),
    /// pg_rewind, before or after it changed anything: the directory counts as broken.
    #[error("cannot rewind")]
    Rewind(#[source] program::Error),
    /// pg_rewind compares control files, and the source's still has the old timeline until its
    /// first checkpoint after the promotion: the directory was not touched, and may differ.
    #[error("pg_rewind saw no difference to the source's timeline, so it changed nothing")]
    Nothing,
}

/// What pg_rewind says when it does nothing.
const NOTHING_DONE: &str = "no rewind required";

/// Rewinds PGDATA onto `source`. The server must be stopped. Until it has ended well, the
/// directory is marked and never started: an interrupted rewind leaves it broken.
///
/// # Errors
/// If it fails; the directory then stays marked.
pub async fn run(
    root: &Root,
    installation: &Installation,
    source: &Source,
    application_name: &str,
) -> Result<(), Error> {
    // A single-user server, which pg_rewind starts for crash recovery, refuses this file.
    for name in ["standby.signal", "recovery.signal"] {
        data::remove_file(&root.pgdata().join(name)).map_err(Error::Volume)?;
    }
    data::mark_rewind(root, true).map_err(Error::Volume)?;
    let server = source.connection_string(root, application_name);
    let output = Run::new(installation.program("pg_rewind"), REWIND_LIMIT)
        .arg("--target-pgdata")
        .arg(root.pgdata())
        .arg(format!("--source-server={server} dbname='postgres'"))
        .run()
        .await
        .map_err(Error::Rewind)?;
    if output.contains(NOTHING_DONE) {
        data::mark_rewind(root, false).map_err(Error::Volume)?;
        return Err(Error::Nothing);
    }
    // What the source had beside its data, and what describes the source itself.
    for name in ["postmaster.pid", "postmaster.opts", "backup_label.old", "tablespace_map.old"] {
        data::remove_file(&root.pgdata().join(name)).map_err(Error::Volume)?;
    }
    data::mark_rewind(root, false).map_err(Error::Volume)
}
