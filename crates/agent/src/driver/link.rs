//! The agent's end of the socket to the keeper.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use matriarch_plan::protocol::Right;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, watch};

use crate::error::Error;
use crate::keeper::message::{Ending, Notice, Request, SIZE};

/// The postmaster as the keeper last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Postmaster {
    /// None runs, and no process of its directory is left.
    None {
        /// How the last one ended, if this agent saw it.
        ending: Option<Ending>,
    },
    /// It runs.
    Running {
        /// Its number.
        pid: u32,
    },
    /// The last start failed.
    NotStarted {
        /// See [`Notice::StartFailed`].
        error: u32,
    },
}

impl Postmaster {
    /// True while there is one.
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// How the keeper found things when this agent began.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// The pod has been asked to end.
    pub terminating: bool,
    /// The keeper holds the lock on the data volume.
    pub locked: bool,
    /// The right that PostgreSQL has, if it has one.
    pub right: Option<Right>,
    /// What the keeper speaks.
    pub protocol: u8,
    /// The keeper was asked to become this program, and could not.
    pub stays: bool,
    /// The keeper goes on where another program was.
    pub renewed: bool,
}

/// The socket to the keeper.
#[derive(Clone)]
pub struct KeeperLink {
    requests: mpsc::UnboundedSender<Request>,
    postmaster: watch::Receiver<Postmaster>,
    sent: Arc<Mutex<std::os::unix::net::UnixStream>>,
}

/// What the keeper tells beside the postmaster's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The postmaster's state changed.
    Postmaster(Postmaster),
    /// The pod is asked to end.
    Terminate,
    /// The keeper is gone.
    Gone,
}

impl KeeperLink {
    /// Takes the socket that the keeper gave as standard input, and waits for its first message.
    ///
    /// # Errors
    /// If there is none.
    pub async fn open(news: mpsc::UnboundedSender<News>) -> Result<(Self, Hello), Error> {
        let failed = |error: rustix::io::Errno| Error::Keeper(error.into());
        let descriptor =
            rustix::stdio::stdin().as_fd().try_clone_to_owned().map_err(Error::Keeper)?;
        rustix::net::sockopt::socket_type(&descriptor).map_err(failed)?;
        let stream = std::os::unix::net::UnixStream::from(descriptor);
        Self::over(stream, news).await
    }

    /// The same over a given socket.
    ///
    /// # Errors
    /// If the keeper says nothing.
    pub async fn over(
        stream: std::os::unix::net::UnixStream,
        news: mpsc::UnboundedSender<News>,
    ) -> Result<(Self, Hello), Error> {
        stream.set_nonblocking(true).map_err(Error::Keeper)?;
        let writer = stream.try_clone().map_err(Error::Keeper)?;
        let (mut reading, writing) =
            UnixStream::from_std(stream).map_err(Error::Keeper)?.into_split();
        // Kept open by `sent`; its own half is not needed.
        writing.forget();
        let Some(Notice::Hello {
            postmaster,
            terminating,
            locked,
            right,
            protocol,
            stays,
            renewed,
        }) = receive(&mut reading).await?
        else {
            return Err(Error::KeeperGone);
        };
        let state = if postmaster == 0 {
            Postmaster::None { ending: None }
        } else {
            Postmaster::Running { pid: postmaster }
        };
        let (told, postmaster) = watch::channel(state);
        tokio::spawn(listen(reading, told, news));
        let (requests, mut queue) = mpsc::unbounded_channel::<Request>();
        let sent = Arc::new(Mutex::new(writer));
        let late = sent.clone();
        tokio::spawn(async move {
            // Only what did not fit at once comes here; the keeper reads many times a second.
            while let Some(request) = queue.recv().await {
                while write(&late, request).is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        });
        let hello = Hello { terminating, locked, right, protocol, stays, renewed };
        Ok((Self { requests, postmaster, sent }, hello))
    }

    /// Tells the keeper. What was told before is in force before.
    pub fn tell(&self, request: Request) {
        if write(&self.sent, request).is_err() {
            // The socket's buffer holds thousands: the keeper is stopped or gone.
            let _ended = self.requests.send(request);
        }
    }

    /// The postmaster as last told.
    #[must_use]
    pub fn postmaster(&self) -> Postmaster {
        *self.postmaster.borrow()
    }

    /// For waiting for a change of the postmaster.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Postmaster> {
        self.postmaster.clone()
    }

    /// Waits until no postmaster runs.
    pub async fn ended(&self) {
        let mut state = self.watch();
        // An error means that the keeper is gone, which ends the agent.
        let _gone = state.wait_for(|state| !state.is_running()).await;
    }
}

fn write(stream: &Mutex<std::os::unix::net::UnixStream>, request: Request) -> std::io::Result<()> {
    use std::io::Write;
    let mut stream = stream.lock().map_err(|_| std::io::ErrorKind::Other)?;
    // Messages are far smaller than the socket's buffer: they are written whole or not at all.
    stream.write_all(&request.encode())
}

async fn receive(reading: &mut OwnedReadHalf) -> Result<Option<Notice>, Error> {
    let mut bytes = [0; SIZE];
    reading.read_exact(&mut bytes).await.map_err(|_| Error::KeeperGone)?;
    Ok(Notice::decode(&bytes))
}

async fn listen(
    mut reading: OwnedReadHalf,
    told: watch::Sender<Postmaster>,
    news: mpsc::UnboundedSender<News>,
) {
    loop {
        let Ok(notice) = receive(&mut reading).await else {
            let _ended = news.send(News::Gone);
            return;
        };
        let state = match notice {
            Some(Notice::Started { pid }) => Postmaster::Running { pid },
            Some(Notice::StartFailed { error }) => Postmaster::NotStarted { error },
            Some(Notice::Exited { ending, by_rule_five }) => {
                tracing::info!(?ending, by_rule_five, "PostgreSQL ended");
                Postmaster::None { ending: Some(ending) }
            }
            Some(Notice::Terminate) => {
                let _ended = news.send(News::Terminate);
                continue;
            }
            Some(Notice::Hello { .. }) | None => continue,
        };
        told.send_replace(state);
        let _ended = news.send(News::Postmaster(state));
    }
}
