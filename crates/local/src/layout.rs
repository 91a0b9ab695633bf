//! The state directory: where everything of one `matriarch local` lies.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

/// Longest path of the state directory. A socket's path has at most 107 bytes, of which a pod
/// needs `/p/01234567/i0/controller/run/.s.PGSQL.5432.lock`.
pub const LONGEST_STATE_PATH: usize = 107 - 50;

/// What goes wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It cannot be made or entered.
    #[error("cannot use {path} as the state directory; choose another with --state DIRECTORY")]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sockets below it would have too long a path.
    #[error(
        "the state directory {path} has a path of {length} bytes, and the Unix sockets in it \
         could not be opened: choose one of at most {LONGEST_STATE_PATH} with --state DIRECTORY"
    )]
    TooLong {
        /// The directory.
        path: PathBuf,
        /// Bytes in its path.
        length: usize,
    },
    /// A file in it cannot be read or written.
    #[error("cannot use {path}")]
    Use {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process runs on it.
    #[error(
        "matriarch local runs already on {path}: {owner}; stop it with \
         `matriarch local stop --state {path}` or choose another directory with --state"
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// Who, as the lock file says.
        owner: String,
    },
    /// The file system is nearly full.
    #[error(
        "only {free_mib} MiB are free on the file system of {path}, and {needed_mib} are needed: \
         make room or choose another directory with --state DIRECTORY"
    )]
    Full {
        /// The directory.
        path: PathBuf,
        /// Free space, in MiB.
        free_mib: u64,
        /// What is needed to start, in MiB.
        needed_mib: u64,
    },
}

/// Paths below the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

/// Free space without which nothing is started, in MiB.
const NEEDED_MIB: u64 = 128;

impl Layout {
    /// Makes the state directory where it is missing. Others may pass through it (the databases
    /// run as another user when we are root) but not list it.
    pub fn make(path: &Path) -> Result<Self, LayoutError> {
        let failed = |source| LayoutError::Make { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(failed)?;
        let root = path.canonicalize().map_err(failed)?;
        let length = root.as_os_str().len();
        if length > LONGEST_STATE_PATH {
            return Err(LayoutError::TooLong { path: root, length });
        }
        let layout = Self { root };
        for directory in [layout.pods(), layout.volumes(), layout.logs(), layout.programs()] {
            make_directory(&directory, 0o711).map_err(failed)?;
        }
        let space = rustix::fs::statvfs(&layout.root).map_err(|error| failed(error.into()))?;
        let free_mib = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
        if free_mib < NEEDED_MIB {
            let path = layout.root;
            return Err(LayoutError::Full { path, free_mib, needed_mib: NEEDED_MIB });
        }
        Ok(layout)
    }

    /// An existing state directory.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let root = path
            .canonicalize()
            .map_err(|source| LayoutError::Use { path: path.to_owned(), source })?;
        Ok(Self { root })
    }

    /// The state directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directories of pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.root.join("p")
    }

    /// The directory of one pod; short, because sockets lie in it.
    #[must_use]
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(short_hash(uid))
    }

    /// Directories of persistent volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Logs of containers.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Log of one container; earlier runs are appended to the same file.
    #[must_use]
    pub fn log(&self, namespace: &str, pod: &str, uid: &str, container: &str) -> PathBuf {
        self.logs()
            .join(format!("{namespace}_{pod}_{}", short_hash(uid)))
            .join(format!("{container}.log"))
    }

    /// Programs that containers run.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The API server's objects.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Addresses given out.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        self.root.join("network.json")
    }

    /// What kubectl needs.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Files for clients of the databases: CA certificates and password files.
    #[must_use]
    pub fn clients(&self) -> PathBuf {
        self.root.join("clients")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Takes the state directory for this process until the lock is dropped.
    pub fn lock(&self, description: &str) -> Result<Lock, LayoutError> {
        let path = self.lock_file();
        let failed = |source| LayoutError::Use { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            file.read_to_string(&mut owner).map_err(failed)?;
            let owner = owner.trim().to_owned();
            return Err(LayoutError::Taken { path: self.root.clone(), owner });
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "process {} {description}", std::process::id()).map_err(failed)?;
        Ok(Lock { _file: file })
    }

    /// The process that holds the lock, if one does.
    pub fn owner(&self) -> Result<Option<i32>, LayoutError> {
        let path = self.lock_file();
        let failed = |source| LayoutError::Use { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return Ok(None);
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        Ok(text.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()))
    }
}

/// Held while a `matriarch local` runs on a state directory.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Eight hexadecimal digits that stand for `text` in a path.
#[must_use]
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a directory with exactly `mode`, whatever the umask.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Replaces a file as one step: a reader sees the old content or the new one.
pub fn write_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let temporary = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("m-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_second_process_is_told_who_runs() {
        let path = scratch("lock");
        let layout = Layout::make(&path).unwrap();
        assert_eq!(layout.owner().unwrap(), None);
        let lock = layout.lock("since then").unwrap();
        let refused = layout.lock("too").unwrap_err().to_string();
        let pid = std::process::id();
        assert!(refused.contains(&format!("process {pid} since then")), "{refused}");
        assert_eq!(layout.owner().unwrap(), i32::try_from(pid).ok());
        drop(lock);
        assert_eq!(layout.owner().unwrap(), None);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_state_path_too_long_for_sockets_is_refused() {
        let path = scratch("long").join("x".repeat(80));
        let refused = Layout::make(&path).unwrap_err();
        assert!(matches!(refused, LayoutError::TooLong { .. }), "{refused}");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn sockets_below_the_longest_state_path_can_be_opened() {
        let longest = PathBuf::from(format!("/{}", "x".repeat(LONGEST_STATE_PATH - 1)));
        let layout = Layout { root: longest };
        let socket = layout.pod("uid").join("i0/controller/run/.s.PGSQL.5432.lock");
        assert!(socket.as_os_str().len() <= 107, "{}", socket.as_os_str().len());
    }
}
