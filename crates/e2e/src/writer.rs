//! A client that writes unique integers all the time through one address, records every
//! acknowledgement, and compares at the end.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// Time between two writes of an undisturbed writer.
const PERIOD: Duration = Duration::from_millis(5);
/// How long a connection or a statement may take before the client gives it up.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client that writes.
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<Vec<(i64, Instant)>>>,
    target: Arc<Target>,
}

/// What a writer found.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Writes acknowledged.
    pub acknowledged: usize,
    /// Writes acknowledged that are gone.
    pub lost: Vec<i64>,
    /// Longest time between two acknowledgements.
    pub longest_gap: Duration,
    /// When that time was over.
    pub gap_ended: Option<SystemTime>,
}

/// A connection string; password and certificates are read anew for each connection, because
/// either may change.
struct Target(String);

impl Writer {
    /// Makes the table and begins to write. `connection_string` is libpq's, as `local` prints it.
    pub async fn start(connection_string: &str) -> anyhow::Result<Self> {
        let target = Arc::new(Target(connection_string.to_owned()));
        let client = target.connect().await?;
        client
            .batch_execute("create table if not exists written (value bigint primary key)")
            .await?;
        let row = client.query_one("select coalesce(max(value), 0) from written", &[]).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(target.clone(), stop.clone(), row.get(0)));
        Ok(Self { stop, task, target })
    }

    /// Stops writing and compares what was acknowledged with what is there.
    pub async fn finish(self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged = self.task.await??;
        let mut attempts = 0;
        let client = loop {
            match self.target.connect().await {
                Ok(client) => break client,
                Err(error) if attempts >= 100 => return Err(error),
                Err(_) => attempts += 1,
            }
            sleep(Duration::from_millis(100)).await;
        };
        let rows = client.query("select value from written", &[]).await?;
        let stored: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let values: BTreeSet<i64> = acknowledged.iter().map(|(value, _)| *value).collect();
        let gaps = acknowledged.iter().zip(acknowledged.iter().skip(1));
        let longest = gaps
            .map(|((_, before), (_, after))| (after.duration_since(*before), *after))
            .max_by_key(|(gap, _)| *gap);
        Ok(Tally {
            acknowledged: values.len(),
            lost: crate::local::lost(&values, &stored),
            longest_gap: longest.map(|(gap, _)| gap).unwrap_or_default(),
            gap_ended: longest.and_then(|(_, end)| SystemTime::now().checked_sub(end.elapsed())),
        })
    }
}

async fn write(
    target: Arc<Target>,
    stop: Arc<AtomicBool>,
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
        if let Ok(Ok(1)) = timeout(PATIENCE, insert).await {
            acknowledged.push((value, Instant::now()));
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
        for pair in self.0.split_whitespace() {
            let (key, value) = pair.split_once('=').context("key=value")?;
            match key {
                "host" => {
                    config.host(value).hostaddr([127, 0, 0, 1].into());
                }
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
        config.connect_timeout(PATIENCE);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok((config, Tls(Arc::new(tls))))
    }

    async fn connect(&self) -> anyhow::Result<tokio_postgres::Client> {
        let (config, tls) = self.parse()?;
        let (client, connection) = timeout(PATIENCE, config.connect(tls)).await??;
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
