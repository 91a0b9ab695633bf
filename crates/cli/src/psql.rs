//! `psql CLUSTER [-- ARGS]`: psql in the primary's pod, or, where pods are processes of this
//! machine, on the port of 127.0.0.1 that leads to the primary.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::core::v1::{Secret, Service};
use kube::{Api, ResourceExt};
use matriarch_api::instance::InstanceRole;
use matriarch_api::{Cluster, names};

use crate::error::Error;
use crate::session::{Connection, Session};

/// On `-rw`: the address of this machine that leads to the primary, written by one-machine mode.
const HOST_ADDRESS: &str = "local.matriarch.dev/address";

/// Arguments of `psql`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The cluster.
    pub cluster: String,
    /// Connect to a standby.
    #[arg(long)]
    pub replica: bool,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
    /// Arguments of psql.
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// Opens psql; returns only if that fails, or once psql of this machine has ended well.
///
/// # Errors
/// If there is no instance to connect to, or no psql.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let cluster = session.cluster(&arguments.cluster).await?;
    let services: Api<Service> = Api::namespaced(session.client.clone(), &session.namespace);
    // Without the right to see Services this is no one-machine mode, whose user may do everything.
    let service = services.get_opt(&names::service_rw(&arguments.cluster)).await.ok().flatten();
    let address = service.and_then(|service| service.annotations().get(HOST_ADDRESS).cloned());
    match address {
        Some(address) => on_this_machine(session, arguments, &cluster, &address).await,
        None => in_the_pod(session, arguments).await,
    }
}

async fn in_the_pod(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let cluster = &arguments.cluster;
    let instances = session.instances().list(&session.of(cluster)).await;
    let instances = instances.map_err(|error| session.refused("list", "instances", error))?;
    let role = if arguments.replica { InstanceRole::Standby } else { InstanceRole::Primary };
    let found = instances
        .items
        .iter()
        .find(|instance| instance.status.as_ref().is_some_and(|report| report.role == role));
    let Some(instance) = found else {
        return Err(Error::Refused(format!(
            "no instance of cluster {cluster} reports to be a {role:?} now; see `status {cluster}`"
        )));
    };
    let call = exec(&session.connection, &session.namespace, instance.name(), arguments);
    let source = Command::new("kubectl").args(&call).exec();
    let cure = "install kubectl, or put it on the PATH".to_owned();
    Err(Error::Program { program: "kubectl".to_owned(), cure, source })
}

/// Arguments of kubectl.
fn exec(connection: &Connection, namespace: &str, pod: &str, arguments: &Arguments) -> Vec<String> {
    let mut call: Vec<String> = Vec::new();
    if let Some(path) = &connection.kubeconfig {
        call.extend(["--kubeconfig".to_owned(), path.display().to_string()]);
    }
    if let Some(context) = &connection.context {
        call.extend(["--context".to_owned(), context.clone()]);
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let interactive = if terminal { "-it" } else { "-i" };
    let fixed = ["-n", namespace, "exec", interactive, pod, "-c", names::POSTGRES_CONTAINER];
    call.extend(fixed.map(str::to_owned));
    let socket = format!("host={SOCKETS} user={} dbname=postgres", names::SUPERUSER);
    call.extend(["--".to_owned(), "psql".to_owned(), socket]);
    call.extend(arguments.arguments.iter().cloned());
    call
}

/// Where PostgreSQL's sockets are in a pod (ARCHITECTURE.md, "The pod").
const SOCKETS: &str = "/controller/run";

async fn on_this_machine(
    session: &Session,
    arguments: &Arguments,
    cluster: &Cluster,
    address: &str,
) -> Result<(), Error> {
    if arguments.replica {
        return Err(Error::Refused(
            "one-machine mode has a port for the primary alone: leave --replica out".to_owned(),
        ));
    }
    let secret = read_secret(session, &cluster.spec.application_secret(cluster.name())).await?;
    let value = |key: &str| needed(&secret, key, cluster);
    // A Secret that the user gave holds name and password alone.
    let authority = match value("ca.crt") {
        Ok(authority) => authority,
        Err(_) => {
            let secret = read_secret(session, &names::secret_ca(cluster.name())).await?;
            needed(&secret, "ca.crt", cluster)?
        }
    };
    let database = value("dbname").unwrap_or_else(|_| cluster.spec.application_database());
    let port = address.rsplit_once(':').map_or(address, |(_, port)| port);
    let authority = Authority::write(&authority)?;
    let connection = format!(
        "host=localhost port={port} dbname={database} user={} sslmode=verify-full sslrootcert={}",
        value("username")?,
        authority.path.display()
    );
    let mut child = tokio::process::Command::new("psql")
        .arg(connection)
        .args(&arguments.arguments)
        .env("PGPASSWORD", value("password")?)
        .spawn()
        .map_err(|source| Error::Program {
            program: "psql".to_owned(),
            cure: "apt-get install postgresql-client".to_owned(),
            source,
        })?;
    // Ctrl-C is psql's: it ends a query, not the session.
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended.map_err(Error::Output)?,
            pressed = tokio::signal::ctrl_c() => pressed.map_err(Error::Output)?,
        }
    };
    drop(authority);
    if ended.success() { Ok(()) } else { Err(Error::Refused(format!("psql ended: {ended}"))) }
}

async fn read_secret(session: &Session, name: &str) -> Result<Secret, Error> {
    let secrets: Api<Secret> = Api::namespaced(session.client.clone(), &session.namespace);
    let secret = secrets.get(name).await;
    secret.map_err(|error| session.refused("get", "secrets", error))
}

/// A value of a Secret that has to be there.
fn needed(secret: &Secret, key: &str, cluster: &Cluster) -> Result<String, Error> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()).ok_or_else(|| {
        let (name, cluster) = (secret.name_any(), cluster.name());
        Error::Refused(format!("Secret {name} has no {key} yet; see `explain {cluster}`"))
    })
}

/// The file with the authority that verifies the server, as long as psql runs.
struct Authority {
    path: PathBuf,
}

impl Authority {
    fn write(certificate: &str) -> Result<Self, Error> {
        let path =
            std::env::temp_dir().join(format!("kubectl-matriarch-{}.crt", std::process::id()));
        let failed = |source| Error::Program {
            program: "psql".to_owned(),
            cure: format!("make {} writable", path.display()),
            source,
        };
        // Made anew and by nobody else: the server is trusted by what is in it.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(certificate.as_bytes()).map_err(failed)?;
        Ok(Self { path })
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // Left behind it is an unused certificate without a secret in it.
        let _gone = std::fs::remove_file(&self.path);
    }
}
