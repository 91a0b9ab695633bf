//! `matriarch agent status --json`: asks the running agent over its Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::root::Root;

/// How long the running agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No agent listens.
    #[error("cannot reach the agent at {path}")]
    Connect {
        /// Its socket.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It did not answer.
    #[error("cannot read the agent's answer")]
    Read(#[source] std::io::Error),
    /// The answer cannot be printed.
    #[error("cannot print the status")]
    Print(#[source] std::io::Error),
}

/// Prints the running agent's status as one JSON document.
///
/// # Errors
/// If no agent answers.
pub fn print() -> Result<(), Error> {
    let path = Root::from_environment().agent_socket();
    let mut stream = UnixStream::connect(&path)
        .map_err(|source| Error::Connect { path: path.display().to_string(), source })?;
    stream.set_read_timeout(Some(LIMIT)).map_err(Error::Read)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(Error::Read)?;
    let mut output = std::io::stdout();
    output.write_all(&answer).and_then(|()| output.flush()).map_err(Error::Print)
}

/// Answers everybody who connects to the agent's socket with the status document.
///
/// # Errors
/// If the socket cannot be made.
pub fn serve(
    root: &Root,
    status: tokio::sync::watch::Receiver<bytes::Bytes>,
) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let path = root.agent_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = tokio::net::UnixListener::bind(&path)?;
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let document = status.borrow().clone();
            tokio::spawn(async move {
                // Whoever asked may have gone away.
                let _gone = stream.write_all(&document).await;
                let _gone = stream.shutdown().await;
            });
        }
    });
    Ok(())
}
