//! The two processes beside a test of a real PostgreSQL: the keeper, which has to be one of its own,
//! and in the agent's place one that ties the keeper's socket to the test's.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use matriarch_agent::keeper::renewal;
use matriarch_agent::{KeeperOptions, Root};

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("keeper") if std::env::args().nth(2).as_deref() == Some(renewal::CHECK) => {
            Ok(renewal::check())
        }
        Some("keeper") => keep(),
        Some("relay") => relay(),
        Some(_) | None => Err(io::Error::other("started by tests, as keeper or as relay")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn variable(name: &str) -> io::Result<OsString> {
    std::env::var_os(name).ok_or_else(|| io::Error::other(format!("{name} is not set")))
}

/// The keeper on the directory that the test names; its agent is the relay.
fn keep() -> io::Result<ExitCode> {
    let program = std::env::current_exe()?.into_os_string();
    let agent = vec![program.clone(), "relay".into()];
    let keeper = vec![program, "keeper".into()];
    let options = KeeperOptions { root: Root::new(variable("MATRIARCH_ROOT")?), agent, keeper };
    Ok(matriarch_agent::keeper::run(options))
}

/// Copies both ways until either end goes away: then so does this process.
fn relay() -> io::Result<ExitCode> {
    let keeper = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let test = UnixStream::connect(variable("MATRIARCH_TEST_SOCKET")?)?;
    let (mut from_keeper, mut to_test) = (keeper.try_clone()?, test.try_clone()?);
    std::thread::spawn(move || {
        let _ended = io::copy(&mut from_keeper, &mut to_test);
        std::process::exit(0);
    });
    let (mut from_test, mut to_keeper) = (test, keeper);
    let _ended = io::copy(&mut from_test, &mut to_keeper);
    Ok(ExitCode::SUCCESS)
}
