//! `matriarch agent status --json`: asks the running agent over its Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use matriarch_api::causes::chain;
use matriarch_api::statistics::Measured;

use crate::driver::context::Context;
use crate::postgres::sql::{SearchPath, Session};
use crate::postgres::statistics;
use crate::root::Root;

/// How long the running agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long PostgreSQL may take.
const MEASURE_LIMIT: Duration = Duration::from_secs(3);

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

/// Answers everybody who connects to the agent's socket with the status document, and with what
/// PostgreSQL says at that moment.
///
/// # Errors
/// If the socket cannot be made.
pub fn serve(
    context: Context,
    status: tokio::sync::watch::Receiver<bytes::Bytes>,
) -> std::io::Result<()> {
    let path = context.options.root.agent_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = tokio::net::UnixListener::bind(&path)?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let document = status.borrow().clone();
            tokio::spawn(answer(context.clone(), stream, document));
        }
    });
    Ok(())
}

async fn answer(context: Context, mut stream: tokio::net::UnixStream, document: bytes::Bytes) {
    use tokio::io::AsyncWriteExt;
    let measured = measure(&context).await;
    let whole = serde_json::from_slice(&document).and_then(|mut whole: serde_json::Value| {
        if let (Some(whole), serde_json::Value::Object(measured)) =
            (whole.as_object_mut(), serde_json::to_value(measured)?)
        {
            whole.extend(measured);
        }
        serde_json::to_vec(&whole)
    });
    let text = whole.unwrap_or_else(|_| document.to_vec());
    // Whoever asked may have gone away.
    let _gone = stream.write_all(&text).await;
    let _gone = stream.shutdown().await;
}

/// In a session of its own: what decides about a failover waits for nobody's curiosity.
async fn measure(context: &Context) -> Measured {
    let root = &context.options.root;
    let asking = async {
        let session = Session::open(root, "postgres", SearchPath::Catalog)
            .await
            .map_err(statistics::Error::Ask)?;
        statistics::read(&session).await
    };
    let failed = |why| Measured { statistics: None, unmeasured: Some(why) };
    match tokio::time::timeout(MEASURE_LIMIT, asking).await {
        Ok(Ok(found)) => Measured { statistics: Some(found), unmeasured: None },
        Ok(Err(error)) => failed(chain(&error)),
        Err(_) => failed(format!("PostgreSQL gave no answer within {MEASURE_LIMIT:?}")),
    }
}
