//! The logs of all pods that a namespace had while a test ran, also of those that were replaced:
//! the API server has none of a pod that is gone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// How often new files are looked for: a container that ends sooner is missed.
const PERIOD: Duration = Duration::from_millis(200);

/// Holds on to every log file that the kubelets make, by a second name for it, until dropped.
pub struct PodLogs {
    kept: Kept,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Kept {
    /// Where the machines' directories are.
    machines: PathBuf,
    namespaces: Vec<String>,
    directory: PathBuf,
}

/// A line of a log, without what the runtime puts before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub at: jiff::Timestamp,
    /// What was written.
    pub text: String,
}

impl PodLogs {
    /// Begins to keep those of `namespaces`, under the name of the first; `directory` is that of the
    /// cluster of machines.
    ///
    /// # Errors
    /// If they cannot be kept.
    pub fn follow(directory: &Path, namespaces: impl Into<Vec<String>>) -> Result<Self> {
        let namespaces = namespaces.into();
        let first = namespaces.first().context("no namespace")?;
        let kept = Kept {
            machines: directory.join("machines"),
            directory: directory.join("podlogs").join(first),
            namespaces,
        };
        remove(&kept.directory)?;
        fs::create_dir_all(&kept.directory)
            .with_context(|| format!("cannot make {}", kept.directory.display()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, keeping) = (stop.clone(), kept.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                keeping.link();
                std::thread::sleep(PERIOD);
            }
        });
        Ok(Self { kept, stop, thread: Some(thread) })
    }

    /// The lines of a namespace's containers, by pod, container and file.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(&self, namespace: &str) -> Result<BTreeMap<String, Vec<Line>>> {
        self.kept.link();
        let mut logs = BTreeMap::new();
        let directory = self.kept.directory.join(namespace);
        for path in entries(&directory) {
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = String::from_utf8_lossy(&text);
            logs.insert(name(&path), text.lines().filter_map(parse).collect());
        }
        Ok(logs)
    }
}

impl Drop for PodLogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _panicked = thread.join();
        }
        if let Err(error) = remove(&self.kept.directory) {
            eprintln!("{error:#}");
        }
    }
}

impl Kept {
    /// Gives every file that has none a second name: what is written later stands in both.
    fn link(&self) {
        for machine in entries(&self.machines) {
            for pod in entries(&machine.join("pods")) {
                let pod_name = name(&pod);
                let Some((namespace, pod_name)) = pod_name.split_once('_') else { continue };
                if self.namespaces.iter().any(|it| it == namespace) {
                    for container in entries(&pod) {
                        let prefix = format!("{pod_name}_{}", name(&container));
                        link_files(&container, &self.directory.join(namespace), &prefix);
                    }
                }
            }
        }
    }
}

/// A file's number keeps one that was rotated apart from its successor of the same name.
fn link_files(container: &Path, to: &Path, prefix: &str) {
    for file in entries(container) {
        let Ok(metadata) = fs::metadata(&file) else { continue };
        let own = to.join(format!("{prefix}_{}_{}", metadata.ino(), name(&file)));
        // It is there already, or the kubelet has just removed the file.
        let _there = fs::create_dir_all(to).and_then(|()| fs::hard_link(&file, own));
    }
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What a directory holds; nothing if it is not there (any more).
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `2026-11-23T14:21:04.69Z stdout F …`, as the runtimes of the CRI write logs.
fn parse(line: &str) -> Option<Line> {
    let mut parts = line.splitn(4, ' ');
    let at = parts.next()?.parse().ok()?;
    let text = parts.nth(2)?.to_owned();
    Some(Line { at, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_a_pod_that_is_gone_are_read_and_those_of_others_are_not() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("podlogs-{}", std::process::id()));
        let container = directory.join("machines/node1/pods/mine_db-1_uid-1/postgres");
        let other = directory.join("machines/node2/pods/other_db-1_uid-2/postgres");
        for place in [&container, &other] {
            fs::create_dir_all(place)?;
            fs::write(place.join("0.log"), "2026-11-23T14:21:04.69Z stdout F one two\n")?;
        }
        let logs = PodLogs::follow(&directory, ["mine".to_owned()])?;
        assert_eq!(logs.read("mine")?.len(), 1);
        fs::remove_dir_all(directory.join("machines/node1"))?;
        let read = logs.read("mine")?;
        let (file, lines) = read.first_key_value().context("it is kept")?;
        assert!(file.starts_with("db-1_uid-1_postgres_"), "{file}");
        let at = "2026-11-23T14:21:04.69Z".parse()?;
        assert_eq!(lines, &[Line { at, text: "one two".to_owned() }]);
        assert!(logs.read("other")?.is_empty());
        drop(logs);
        assert!(entries(&directory.join("podlogs")).is_empty(), "nothing is left");
        fs::remove_dir_all(directory)?;
        Ok(())
    }
}
