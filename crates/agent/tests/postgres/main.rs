//! The keeper and the operations against a real PostgreSQL.
//!
//! Keeper and relay are this program itself, started again for one of its ignored tests: the keeper
//! has to be a process of its own. As root everything is started again as user postgres.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bench;
mod keeper;
mod operations;

use std::os::unix::net::UnixStream;
use std::process::Command;

use matriarch_agent::{KeeperOptions, Root};

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

#[test]
#[ignore = "the keeper's process, started by the other tests"]
fn keeper_process() {
    let Some(root) = std::env::var_os("MATRIARCH_ROOT") else { return };
    let options = KeeperOptions {
        root: Root::new(root),
        agent: vec![
            std::env::current_exe().unwrap().into_os_string(),
            "relay_process".into(),
            "--exact".into(),
            "--ignored".into(),
            "--nocapture".into(),
        ],
    };
    // The keeper ends with its process.
    let _ended = matriarch_agent::keeper::run(options);
}

#[test]
#[ignore = "the agent's process, started by the keeper: connects its socket with the test's"]
fn relay_process() {
    use std::os::fd::AsFd;
    let Some(path) = std::env::var_os("MATRIARCH_TEST_SOCKET") else { return };
    let keeper = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let test = UnixStream::connect(path).unwrap();
    let (mut from_keeper, mut to_test) = (keeper.try_clone().unwrap(), test.try_clone().unwrap());
    std::thread::spawn(move || {
        // Either end may go away: then so does this process.
        let _ended = std::io::copy(&mut from_keeper, &mut to_test);
        std::process::exit(0);
    });
    let (mut from_test, mut to_keeper) = (test, keeper);
    let _ended = std::io::copy(&mut from_test, &mut to_keeper);
    std::process::exit(0);
}
