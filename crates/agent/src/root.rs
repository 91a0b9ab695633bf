//! The pod's paths. Nothing else in the workspace names one as a literal.
//!
//! On Kubernetes the root is `/`; under `matriarch local`, where pods have no mount namespace, it
//! is a directory given by `MATRIARCH_ROOT` (traps L1).

use std::path::{Path, PathBuf};

use matriarch_api::statistics::AGENT_SOCKET;

/// The root directory of the pod, from which every path is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    base: PathBuf,
}

impl Root {
    /// The pod's root directory: `/`, or the directory that stands for it.
    #[must_use]
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// Reads `MATRIARCH_ROOT`; `/` without it.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::new(
            std::env::var_os("MATRIARCH_ROOT")
                .filter(|value| !value.is_empty())
                .map_or_else(|| PathBuf::from("/"), PathBuf::from),
        )
    }

    fn join(&self, relative: &str) -> PathBuf {
        self.base.join(relative)
    }

    /// The data volume.
    #[must_use]
    pub fn volume(&self) -> PathBuf {
        self.join("var/lib/postgresql/data")
    }

    /// PGDATA.
    #[must_use]
    pub fn pgdata(&self) -> PathBuf {
        self.volume().join("pgdata")
    }

    /// Where a data directory is made before it is renamed to [`Root::pgdata`].
    #[must_use]
    pub fn pgdata_in_making(&self) -> PathBuf {
        self.volume().join("pgdata.new")
    }

    /// The agent's own files on the data volume: ledger, incarnation, lock.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.volume().join("matriarch")
    }

    /// Data directories that were moved away.
    #[must_use]
    pub fn aside(&self) -> PathBuf {
        self.volume().join("aside")
    }

    /// The mount point of the WAL volume; it exists only where there is one.
    #[must_use]
    pub fn wal_volume(&self) -> PathBuf {
        self.join("var/lib/postgresql/wal")
    }

    /// `pg_wal` on the WAL volume.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.wal_volume().join("pg_wal")
    }

    /// Below it the volume of each tablespace is mounted, under the tablespace's name.
    #[must_use]
    pub fn tablespaces(&self) -> PathBuf {
        self.join(matriarch_api::names::TABLESPACES.trim_start_matches('/'))
    }

    /// Where PostgreSQL has a tablespace: a directory on its volume, whose own root may hold what a
    /// file system puts there.
    #[must_use]
    pub fn tablespace(&self, name: &str) -> PathBuf {
        self.tablespaces().join(name).join("data")
    }

    /// Where a tablespace of a data directory in the making is.
    #[must_use]
    pub fn tablespace_in_making(&self, name: &str) -> PathBuf {
        self.tablespaces().join(name).join("data.new")
    }

    /// Unix sockets, PostgreSQL's and the agent's, and what lives as long as the container.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.join("controller/run")
    }

    /// The agent's own Unix socket (`matriarch agent status`).
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.join(AGENT_SOCKET)
    }

    /// What the keeper starts as PostgreSQL, written by the agent.
    #[must_use]
    pub fn start_file(&self) -> PathBuf {
        self.run().join("postgres.start")
    }

    /// The program that the keeper starts as agent.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.join(matriarch_api::names::BINARY.trim_start_matches('/'))
    }

    /// The file that this process runs from, whatever lies in its place now.
    #[must_use]
    pub fn own_program() -> PathBuf {
        Self::processes().join("self/exe")
    }

    /// Note of a program that is not to be tried again.
    #[must_use]
    pub fn refused_binary(&self) -> PathBuf {
        self.run().join("refused.json")
    }

    /// Certificates that the agent wrote from the Secrets.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.join("controller/certificates")
    }

    /// Where kubelet reads the container's last words: `terminationMessagePath`'s default.
    #[must_use]
    pub fn termination_log(&self) -> PathBuf {
        self.join("dev/termination-log")
    }

    /// PostgreSQL's log files, read and removed by the agent.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.join("controller/log")
    }

    /// Token, CA and namespace of the pod's service account.
    #[must_use]
    pub fn service_account(&self) -> PathBuf {
        self.join("var/run/secrets/kubernetes.io/serviceaccount")
    }

    /// Directories in which PostgreSQL's programs are looked for after `PATH`. These are the
    /// image's, so they do not depend on the root.
    #[must_use]
    pub fn program_directories() -> Vec<PathBuf> {
        let mut found = Vec::new();
        for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
            let mut versions: Vec<PathBuf> = std::fs::read_dir(parent)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path().join("bin"))
                .filter(|path| path.join("postgres").exists())
                .collect();
            versions.sort();
            found.extend(versions.into_iter().rev());
        }
        found.push(Path::new("/usr/local/bin").to_path_buf());
        found
    }

    /// Where user ids have names. On Kubernetes the operator mounts it; the C library, which is
    /// never asked, reads the same file for PostgreSQL.
    #[must_use]
    pub fn passwd() -> &'static Path {
        Path::new("/etc/passwd")
    }

    /// The kernel's view of the processes. It does not depend on the root.
    #[must_use]
    pub fn processes() -> &'static Path {
        Path::new("/proc")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_lies_below_the_root_that_was_given() {
        let root = Root::new("/tmp/pod");
        let tablespace = root.tablespace("fast");
        for path in [root.pgdata(), root.wal(), root.run(), root.certificates(), tablespace] {
            assert!(path.starts_with("/tmp/pod"), "{}", path.display());
        }
        assert_eq!(Root::new("/").pgdata(), Path::new("/var/lib/postgresql/data/pgdata"));
    }
}
