//! pgbench beside the client that is measured.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use matriarch_e2e::writer::Place;
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
    pub async fn start(
        self,
        place: &Place,
        connection_string: &str,
    ) -> anyhow::Result<Option<Running>> {
        let Self::Pgbench(rate) = self else { return Ok(None) };
        let program = find()?;
        let made = at(place, &program)
            .args(["-i", "-q", "-s", "5", connection_string])
            .output()
            .await
            .context("cannot run pgbench")?;
        let error = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "pgbench -i: {error}");
        let (place, connection_string) = (place.clone(), connection_string.to_owned());
        let task = tokio::spawn(async move {
            // It ends with every connection that breaks, and is started again.
            loop {
                if let Ok(mut child) = spawn(&place, &program, rate, &connection_string) {
                    // How it ended does not matter here.
                    let _ = child.wait().await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Ok(Some(Running(task)))
    }
}

/// A program that stands there.
fn at(place: &Place, program: &Path) -> Command {
    match &place.0 {
        None => Command::new(program),
        Some(namespace) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", namespace.display())).arg("--").arg(program);
            command
        }
    }
}

fn spawn(
    place: &Place,
    program: &Path,
    rate: u32,
    connection_string: &str,
) -> std::io::Result<Child> {
    at(place, program)
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
