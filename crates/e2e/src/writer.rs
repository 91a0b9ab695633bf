//! A client that writes unique integers all the time through one address, records every
//! acknowledgement, and compares at the end.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// Time between two writes of an undisturbed writer.
const PERIOD: Duration = Duration::from_millis(5);
/// How long a connection or a statement may take before a client gives it up that is told nothing
/// else.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for a query of a test.
const QUERY: Duration = Duration::from_secs(30);

/// A client that writes, on a thread of its own: what it measures is not the test's own work, and it
/// may stand in another network namespace.
pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: Option<JoinHandle<anyhow::Result<Tally>>>,
}

/// Where a client stands: the network namespace of a node, by its file, or this process's own.
#[derive(Clone, Debug, Default)]
pub struct Place(pub Option<PathBuf>);

/// What a writer found.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Writes acknowledged.
    pub acknowledged: usize,
    /// From the first acknowledgement to the last.
    pub lasted: Duration,
    /// Writes acknowledged that are gone.
    pub lost: Vec<i64>,
    /// Longest time between two acknowledgements.
    pub longest_gap: Duration,
    /// When that time was over.
    pub gap_ended: Option<SystemTime>,
}

/// A connection string; password and certificates are read anew for each connection, because
/// either may change. So is an address that is given as the path of a file: it stands for a name.
#[derive(Clone)]
struct Target {
    string: String,
    /// How long a connection or a statement may take.
    patience: Duration,
}

impl Place {
    /// Runs `work` on a thread that stands here.
    ///
    /// # Errors
    /// If the thread cannot enter the namespace.
    pub fn run<T, W>(&self, work: W) -> JoinHandle<anyhow::Result<T>>
    where
        T: Send + 'static,
        W: AsyncFnOnce() -> anyhow::Result<T> + Send + 'static,
    {
        let place = self.0.clone();
        std::thread::spawn(move || {
            if let Some(path) = place {
                let file = std::fs::File::open(&path)
                    .with_context(|| format!("no namespace {}", path.display()))?;
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(file.as_fd(), kind)
                    .with_context(|| format!("cannot enter {}", path.display()))?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        })
    }
}

/// Asks through a connection of its own; the first column of each row as text.
///
/// # Errors
/// PostgreSQL's, or that it could not be reached.
pub async fn query(place: &Place, target: &str, sql: &str) -> anyhow::Result<Vec<String>> {
    let target = Target { string: target.to_owned(), patience: PATIENCE };
    let sql = sql.to_owned();
    let thread = place.run(async move || {
        let client = target.connect().await?;
        let answer = timeout(QUERY, client.simple_query(&sql)).await??;
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        Ok(rows.collect())
    });
    joined(thread).await
}

async fn joined<T: Send + 'static>(thread: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    let waited = tokio::task::spawn_blocking(move || thread.join()).await?;
    waited.map_err(|_| anyhow::anyhow!("the client ended in a panic"))?
}

impl Writer {
    /// Makes the table and begins to write. `connection_string` is libpq's, as `local` prints it.
    ///
    /// # Errors
    /// If it cannot connect or make the table.
    pub async fn start(connection_string: &str) -> anyhow::Result<Self> {
        Self::start_at(&Place::default(), connection_string, PATIENCE).await
    }

    /// The same, standing elsewhere, with its own `patience` for a connection or a statement.
    ///
    /// # Errors
    /// As [`Writer::start`].
    pub async fn start_at(
        place: &Place,
        connection_string: &str,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let target = Target { string: connection_string.to_owned(), patience };
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, begun) = tokio::sync::oneshot::channel();
        let stopped = stop.clone();
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let counter = acknowledged.clone();
        let thread = place.run(async move || {
            let first = match prepare(&target).await {
                Ok(first) => first,
                Err(error) => {
                    // Nobody waits for the answer if the test has given up.
                    let _ = ready.send(Err(error));
                    anyhow::bail!("it did not begin");
                }
            };
            let _ = ready.send(Ok(()));
            let acknowledged = write(&target, &stopped, &counter, first).await?;
            compare(&target, acknowledged).await
        });
        begun.await.context("the writer's thread cannot be started")??;
        Ok(Self { stop, acknowledged, thread: Some(thread) })
    }

    /// Waits until writes are acknowledged that were not before.
    ///
    /// # Errors
    /// If none is within `limit`.
    pub async fn goes_on(&self, limit: Duration) -> anyhow::Result<()> {
        // Two: one may have been on its way.
        let wanted = self.acknowledged.load(Ordering::Relaxed) + 2;
        let begun = Instant::now();
        while self.acknowledged.load(Ordering::Relaxed) < wanted {
            anyhow::ensure!(begun.elapsed() < limit, "no write is acknowledged for {limit:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Stops writing and compares what was acknowledged with what is there.
    ///
    /// # Errors
    /// If nobody can be asked what is there.
    pub async fn finish(mut self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        joined(self.thread.take().context("it has been finished")?).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The greatest number that is there.
async fn prepare(target: &Target) -> anyhow::Result<i64> {
    let client = target.reach().await?;
    client.batch_execute("create table if not exists written (value bigint primary key)").await?;
    Ok(client.query_one("select coalesce(max(value), 0) from written", &[]).await?.get(0))
}

async fn compare(target: &Target, acknowledged: Vec<(i64, Instant)>) -> anyhow::Result<Tally> {
    let client = target.reach().await?;
    // What a standby lacks is not lost; and nobody is to meet one here.
    let standby: bool = client.query_one("select pg_is_in_recovery()", &[]).await?.get(0);
    ensure!(!standby, "the client was led to a standby to read what it had written");
    let rows = client.query("select value from written", &[]).await?;
    let stored: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let values: BTreeSet<i64> = acknowledged.iter().map(|(value, _)| *value).collect();
    let gaps = acknowledged.iter().zip(acknowledged.iter().skip(1));
    let longest = gaps
        .map(|((_, before), (_, after))| (after.duration_since(*before), *after))
        .max_by_key(|(gap, _)| *gap);
    let ends = acknowledged.first().zip(acknowledged.last());
    Ok(Tally {
        acknowledged: values.len(),
        lasted: ends.map(|((_, first), (_, last))| *last - *first).unwrap_or_default(),
        lost: crate::local::lost(&values, &stored),
        longest_gap: longest.map(|(gap, _)| gap).unwrap_or_default(),
        gap_ended: longest.and_then(|(_, end)| SystemTime::now().checked_sub(end.elapsed())),
    })
}

async fn write(
    target: &Target,
    stop: &AtomicBool,
    counter: &AtomicUsize,
    before: i64,
) -> anyhow::Result<Vec<(i64, Instant)>> {
    let mut acknowledged = Vec::new();
    let mut client = None;
    let mut value = before;
    while !stop.load(Ordering::Relaxed) {
        let connected = match client.take() {
            Some(connected) => connected,
            None => match target.connect().await {
                Ok(connected) => connected,
                Err(_) => {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        // A number whose fate is unknown is never used again.
        value += 1;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&value];
        let insert = connected.execute("insert into written values ($1)", &parameters);
        if let Ok(Ok(1)) = timeout(target.patience, insert).await {
            acknowledged.push((value, Instant::now()));
            counter.fetch_add(1, Ordering::Relaxed);
            client = Some(connected);
            sleep(PERIOD).await;
        }
    }
    Ok(acknowledged)
}

impl Target {
    fn parse(&self) -> anyhow::Result<(tokio_postgres::Config, Tls)> {
        let mut config = tokio_postgres::Config::new();
        let mut roots = RootCertStore::empty();
        let mut address = IpAddr::from([127, 0, 0, 1]);
        for pair in self.string.split_whitespace() {
            let (key, value) = pair.split_once('=').context("key=value")?;
            match key {
                "host" => {
                    config.host(value);
                }
                "hostaddr" if value.starts_with('/') => {
                    address = std::fs::read_to_string(value)?.parse()?;
                }
                "hostaddr" => address = value.parse()?,
                "port" => {
                    config.port(value.parse()?);
                }
                "dbname" => {
                    config.dbname(value);
                }
                "user" => {
                    config.user(value);
                }
                "passfile" => {
                    let line = std::fs::read_to_string(value)?;
                    let password = line.trim().rsplit(':').next().unwrap_or_default();
                    config.password(password);
                }
                "sslrootcert" => {
                    for certificate in CertificateDer::pem_file_iter(value)? {
                        roots.add(certificate?)?;
                    }
                }
                "sslmode" => {
                    config.ssl_mode(tokio_postgres::config::SslMode::Require);
                }
                _ => anyhow::bail!("unknown parameter {key}"),
            }
        }
        config.hostaddr(address).connect_timeout(self.patience);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok((config, Tls(Arc::new(tls))))
    }

    /// Connects before and after what is measured, where a machine with much to do may take longer for
    /// one connection than a client who measures outages waits.
    async fn reach(&self) -> anyhow::Result<tokio_postgres::Client> {
        let mut attempts = 0;
        loop {
            match self.connect().await {
                Ok(client) => return Ok(client),
                Err(error) if attempts >= 100 => return Err(error),
                Err(_) => attempts += 1,
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn connect(&self) -> anyhow::Result<tokio_postgres::Client> {
        let (config, tls) = self.parse()?;
        let attempt = timeout(self.patience, config.connect(tls)).await;
        let (client, connection) = attempt.map_err(|_| {
            let what = format!("no connection within {:?}", self.patience);
            io::Error::new(io::ErrorKind::TimedOut, what)
        })??;
        tokio::spawn(async move {
            // The client sees the error as well.
            let _ = connection.await;
        });
        Ok(client)
    }
}

/// TLS for tokio-postgres.
#[derive(Clone)]
struct Tls(Arc<rustls::ClientConfig>);

struct TlsTo(tokio_rustls::TlsConnector, ServerName<'static>);

/// A stream that speaks TLS.
pub struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = TlsTo;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<TlsTo, Self::Error> {
        let name = ServerName::try_from(domain.to_owned())?;
        Ok(TlsTo(self.0.clone().into(), name))
    }
}

impl<S> TlsConnect<S> for TlsTo
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { Ok(Encrypted(self.0.connect(self.1, stream).await?)) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
