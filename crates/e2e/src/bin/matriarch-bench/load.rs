//! pgbench beside the client that is measured.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// What else the cluster has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing.
    Idle,
    /// pgbench with four clients at this many transactions a second.
    Pgbench(u32),
}

impl Load {
    /// How it is called in a table.
    pub fn name(self) -> String {
        match self {
            Self::Idle => "idle".to_owned(),
            Self::Pgbench(rate) => format!("pgbench -c 4 -R {rate}"),
        }
    }

    /// Begins; it stops when what is returned is dropped.
    ///
    /// # Errors
    /// If pgbench is not there or cannot make its tables.
    pub async fn start(self, connection_string: &str) -> anyhow::Result<Option<Running>> {
        let Self::Pgbench(rate) = self else { return Ok(None) };
        let program = find()?;
        let made = Command::new(&program)
            .args(["-i", "-q", "-s", "5", connection_string])
            .output()
            .await
            .context("cannot run pgbench")?;
        let error = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "pgbench -i: {error}");
        let connection_string = connection_string.to_owned();
        let task = tokio::spawn(async move {
            // It ends with every connection that breaks, and is started again.
            loop {
                if let Ok(mut child) = spawn(&program, rate, &connection_string) {
                    // How it ended does not matter here.
                    let _ = child.wait().await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Ok(Some(Running(task)))
    }
}

fn spawn(program: &PathBuf, rate: u32, connection_string: &str) -> std::io::Result<Child> {
    Command::new(program)
        .args(["-n", "-c", "4", "-T", "600", "-R", &rate.to_string(), connection_string])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// pgbench that runs.
pub struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// In `PATH`, or beside the newest server.
fn find() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut servers: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    servers.sort();
    std::env::split_paths(&path)
        .chain(servers.into_iter().rev())
        .map(|directory| directory.join("pgbench"))
        .find(|program| program.exists())
        .context("pgbench is not installed: cargo xtask setup")
}
