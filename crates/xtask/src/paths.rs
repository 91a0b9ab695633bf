//! Where things are on the developer's machine.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// True if this process is root.
pub fn is_root() -> bool {
    // The owner of our own entry in /proc is the effective user.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// What `setup` builds and fetches is kept here across clones.
pub fn cache() -> PathBuf {
    if let Some(directory) = std::env::var_os("XDG_CACHE_HOME").filter(|text| !text.is_empty()) {
        return PathBuf::from(directory).join("matriarch");
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/matriarch")
}

/// What the test cluster is made of, its state and its images; `KUBE_DIR` names another place.
pub fn kube() -> PathBuf {
    match std::env::var_os("KUBE_DIR").filter(|text| !text.is_empty()) {
        Some(directory) => std::path::absolute(&directory).unwrap_or_else(|_| directory.into()),
        None => workspace().join("target/kube"),
    }
}

/// The version of Helm that the chart is tested with: the last that uses this Kubernetes' modules.
pub const HELM: &str = "3.19.5";

/// The program Helm.
pub fn helm() -> PathBuf {
    cache().join("tools").join(format!("helm-{HELM}")).join("helm")
}

/// PostgreSQL's programs of other Debian releases. PostgreSQL never runs as root, and root's home
/// is closed to others, so root keeps them in a system directory.
pub fn postgresql_cache() -> PathBuf {
    if is_root() {
        PathBuf::from("/var/cache/matriarch/postgresql")
    } else {
        cache().join("postgresql")
    }
}
