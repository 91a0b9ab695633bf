//! The keeper and the operations against a real PostgreSQL.
//!
//! The keeper has to be a process of its own: `processes.rs`, which stands in for the agent as well.
//! As root everything is started again as user postgres.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bench;
mod keeper;
mod operations;
mod tablespaces;

use std::process::Command;

/// Runs `test` as an unprivileged user: here, or in a process of its own if this is root. False if
/// it has been run there.
fn unprivileged(test: &str) -> bool {
    if !rustix::process::getuid().is_root() {
        return true;
    }
    let status = Command::new("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .current_dir(std::env::temp_dir())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed as user postgres");
    false
}
