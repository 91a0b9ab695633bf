//! Making a new database cluster.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use matriarch_api::instance::Initdb;

use super::program::{Installation, Run};
use super::sql::{SearchPath, Session, identifier, literal};
use super::{data, program, sql};
use crate::root::Root;

/// Role of standbys, of pg_rewind and of pg_basebackup.
pub const REPLICATION_ROLE: &str = "streaming_replica";

/// How long initdb itself may take.
const INITDB_LIMIT: Duration = Duration::from_secs(600);
/// How long the temporary server may take to start or to stop.
const SERVER_LIMIT: Duration = Duration::from_secs(300);
/// How long one of the user's statements may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(3600);

/// Why no database cluster was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume.
    #[error("cannot prepare the data volume")]
    Volume(#[source] data::Error),
    /// initdb.
    #[error("initdb failed")]
    Initdb(#[source] program::Error),
    /// The configuration.
    #[error("PostgreSQL does not take the configuration: {0}")]
    Configuration(String),
    /// The temporary server.
    #[error("cannot start the server for the first statements")]
    Start(#[source] std::io::Error),
    /// The temporary server.
    #[error("the server for the first statements ended at once: {0}")]
    Ended(String),
    /// The temporary server.
    #[error("the server for the first statements does not answer")]
    Silent(#[source] sql::Error),
    /// A statement.
    #[error("{what} failed")]
    Statement {
        /// Which one.
        what: String,
        /// What PostgreSQL said.
        #[source]
        source: sql::Error,
    },
    /// It does not stop.
    #[error("cannot stop the server for the first statements")]
    Stop(#[source] std::io::Error),
}

/// What Secrets and ConfigMaps hold for the first statements, already read.
#[derive(Default)]
pub struct Scripts {
    /// For database postgres.
    pub init: Vec<String>,
    /// For database template1.
    pub template: Vec<String>,
    /// For the application's database.
    pub application: Vec<String>,
    /// Statements that set the passwords of roles that initdb and these options make: the first
    /// client that is let in finds its own set. Those that cannot be read yet are set later.
    pub passwords: Vec<String>,
}

/// Makes a database cluster, its roles and its application database under the name of making.
/// `configure` writes the configuration into the directory after initdb.
///
/// # Errors
/// If any part fails; then nothing of it is taken for data.
pub async fn make(
    root: &Root,
    installation: &Installation,
    options: &Initdb,
    scripts: &Scripts,
    configure: impl AsyncFnOnce(&Path) -> Result<(), String>,
) -> Result<(), Error> {
    let directory = data::begin(root).map_err(Error::Volume)?;
    data::make_directory(&root.run()).map_err(Error::Volume)?;
    let mut run = Run::new(installation.program("initdb"), INITDB_LIMIT)
        .arg("--pgdata")
        .arg(&directory)
        .args(["--username=postgres", "--auth-local=peer", "--auth-host=reject"]);
    if !options.arguments.iter().any(|argument| argument == "--no-data-checksums") {
        run = run.arg("--data-checksums");
    }
    if let Some(wal) = data::wal_directory(root) {
        run = run.arg("--waldir").arg(wal);
    }
    run.args(options.arguments.iter().filter(|it| *it != "--data-checksums"))
        .run()
        .await
        .map_err(Error::Initdb)?;
    configure(&directory).await.map_err(Error::Configuration)?;
    let mut server = Server::start(root, installation, &directory).await?;
    let outcome = populate(root, options, scripts).await;
    server.stop().await?;
    outcome
}

/// A server without network, for the first statements.
struct Server {
    child: tokio::process::Child,
}

impl Server {
    async fn start(
        root: &Root,
        installation: &Installation,
        directory: &Path,
    ) -> Result<Self, Error> {
        let said = directory.join("first-start.log");
        let output = std::fs::File::create(&said).map_err(Error::Start)?;
        let sockets = format!("unix_socket_directories={}", root.run().display());
        let mut command = tokio::process::Command::new(installation.program("postgres"));
        command.arg("-D").arg(directory);
        for setting in [
            "listen_addresses=",
            "ssl=off",
            "logging_collector=off",
            "log_destination=stderr",
            "archive_mode=off",
            "synchronous_standby_names=",
            sockets.as_str(),
        ] {
            command.args(["-c", setting]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(Error::Start)?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Start)?;
        let mut server = Self { child };
        let begun = tokio::time::Instant::now();
        loop {
            match Session::open(root, "postgres", SearchPath::Catalog).await {
                Ok(_) => break,
                Err(error) if begun.elapsed() > SERVER_LIMIT => return Err(Error::Silent(error)),
                Err(_) => {}
            }
            if let Some(status) = server.child.try_wait().map_err(Error::Start)? {
                let words = std::fs::read_to_string(&said).unwrap_or_default();
                let end = words.lines().rev().take(5).collect::<Vec<_>>();
                let end = end.into_iter().rev().collect::<Vec<_>>().join("; ");
                return Err(Error::Ended(format!("{status}: {end}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        data::remove_file(&said).map_err(Error::Volume)?;
        Ok(server)
    }

    async fn stop(&mut self) -> Result<(), Error> {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::INT)
                .map_err(|error| Error::Stop(error.into()))?;
        }
        let limit = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        match tokio::time::timeout(SERVER_LIMIT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Error::Ended(status.to_string())),
            Ok(Err(error)) => Err(Error::Stop(error)),
            Err(_) => Err(Error::Stop(limit())),
        }
    }
}

async fn connect(root: &Root, database: &str, path: SearchPath) -> Result<Session, Error> {
    Session::open(root, database, path).await.map_err(Error::Silent)
}

async fn execute(session: &Session, statement: &str, what: String) -> Result<(), Error> {
    session
        .execute(statement, STATEMENT_LIMIT)
        .await
        .map_err(|source| Error::Statement { what, source })
}

async fn execute_all(
    root: &Root,
    database: &str,
    field: &str,
    statements: &[String],
    scripts: &[String],
) -> Result<(), Error> {
    if statements.is_empty() && scripts.is_empty() {
        return Ok(());
    }
    let session = connect(root, database, SearchPath::User).await?;
    for (index, statement) in statements.iter().enumerate() {
        execute(&session, statement, format!("statement {index} of {field}")).await?;
    }
    for (index, script) in scripts.iter().enumerate() {
        execute(&session, script, format!("script {index} of {field}Refs")).await?;
    }
    Ok(())
}

async fn populate(root: &Root, options: &Initdb, scripts: &Scripts) -> Result<(), Error> {
    let (owner, database) = (&options.owner, &options.database);
    {
        let session = connect(root, "postgres", SearchPath::Catalog).await?;
        execute(&session, &replication_role(), "making role streaming_replica".to_owned()).await?;
        if !owner.is_empty() && !exists(&session, "pg_roles", "rolname", owner).await? {
            let statement = format!("CREATE ROLE {} LOGIN", identifier(owner));
            execute(&session, &statement, format!("making role {owner}")).await?;
        }
        for statement in &scripts.passwords {
            execute(&session, statement, "setting a password".to_owned()).await?;
        }
    }
    execute_all(root, "postgres", "postInitSQL", &options.post_init_sql, &scripts.init).await?;
    execute_all(
        root,
        "template1",
        "postInitTemplateSQL",
        &options.post_init_template_sql,
        &scripts.template,
    )
    .await?;
    if database.is_empty() {
        return Ok(());
    }
    {
        let session = connect(root, "postgres", SearchPath::Catalog).await?;
        let verb = if exists(&session, "pg_database", "datname", database).await? {
            format!("ALTER DATABASE {} OWNER TO", identifier(database))
        } else {
            format!("CREATE DATABASE {} OWNER", identifier(database))
        };
        let owner = if owner.is_empty() { "postgres" } else { owner };
        let statement = format!("{verb} {}", identifier(owner));
        execute(&session, &statement, format!("making database {database}")).await?;
    }
    execute_all(
        root,
        database,
        "postInitApplicationSQL",
        &options.post_init_application_sql,
        &scripts.application,
    )
    .await
}

async fn exists(session: &Session, catalog: &str, column: &str, name: &str) -> Result<bool, Error> {
    let statement = format!(
        "SELECT 1 FROM pg_catalog.{catalog} WHERE {column} OPERATOR(pg_catalog.=) {}",
        literal(name)
    );
    session
        .value(&statement, STATEMENT_LIMIT)
        .await
        .map(|found| found.is_some())
        .map_err(|source| Error::Statement { what: format!("looking for {name}"), source })
}

/// The role of standbys, with what pg_rewind needs beside replication. It can be repeated.
#[must_use]
pub fn replication_role() -> String {
    let name = identifier(REPLICATION_ROLE);
    let mut statements = format!(
        "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname \
         OPERATOR(pg_catalog.=) {}) THEN CREATE ROLE {name} LOGIN REPLICATION; END IF; END $$;",
        literal(REPLICATION_ROLE)
    );
    for function in [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ] {
        statements.push_str(&format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {name};"));
    }
    statements
}
