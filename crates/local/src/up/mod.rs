//! The parts of `matriarch local up` and of the verbs for one that runs.

pub mod certificates;
pub mod clients;
pub mod kubeconfig;
pub mod leftovers;
pub mod manifests;
pub mod program;
pub mod progress;
pub mod verbs;

use std::path::{Path, PathBuf};

/// The state directory where none is named: a system directory for root, the user's own else.
#[must_use]
pub fn default_state() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/matriarch/local");
    }
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    std::env::var_os("XDG_STATE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("matriarch")
}
