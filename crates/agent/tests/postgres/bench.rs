//! A pod for a test: its root directory, its keeper, its certificates.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use matriarch_agent::driver::context::Context;
use matriarch_agent::driver::link::{KeeperLink, News};
use matriarch_agent::driver::operation;
use matriarch_agent::options::{AgentOptions, POSTGRES_PORT, TablespacePlace};
use matriarch_agent::settings::Known;
use matriarch_agent::{Root, certificates::Files};
use matriarch_api::identity::Identity;
use matriarch_api::instance::{Bootstrap, Initdb};
use matriarch_plan::protocol::{Action, Address, Member, Outcome};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio::sync::{mpsc, watch};

/// The certificates of one cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test");
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn leaf(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, root: &Root, instance: &str) {
        let files = Files::new(root);
        std::fs::create_dir_all(root.certificates()).unwrap();
        let (server, replication) = (self.leaf(instance), self.leaf("streaming_replica"));
        for (path, content) in [
            (files.server_ca(), &self.certificate),
            (files.client_ca(), &self.certificate),
            (files.server_certificate(), &server.0),
            (files.server_key(), &server.1),
            (files.replication_certificate(), &replication.0),
            (files.replication_key(), &replication.1),
        ] {
            std::fs::write(&path, content).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, mode).unwrap();
        }
    }
}

/// One pod.
pub struct Pod {
    pub root: Root,
    pub context: Context,
    pub keeper: Child,
    pub address: IpAddr,
    pub name: String,
    base: PathBuf,
    listener: UnixListener,
    known: watch::Sender<Option<Arc<Known>>>,
    _news: mpsc::UnboundedReceiver<News>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        // By number, in the order in which nothing is started anew: the keeper, then what is left.
        let _gone = self.keeper.kill();
        let _gone = self.keeper.wait();
        for pid in self.processes() {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _gone = std::fs::remove_dir_all(&self.base);
    }
}

impl Pod {
    /// Starts a keeper in a new root directory, with the PostgreSQL that comes first.
    pub async fn start(name: &str, host: u8, authority: &Authority) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::with_path(path, name, host, authority, TablespacePlace::DataDirectory).await
    }

    /// The same with PostgreSQL of that major version: the machine's own, or the one that
    /// `cargo xtask setup` made (`MATRIARCH_POSTGRESQL`).
    pub async fn of_major(major: u32, name: &str, host: u8, authority: &Authority) -> Self {
        Self::with_tablespaces(TablespacePlace::DataDirectory, major, name, host, authority).await
    }

    /// The same, with tablespaces there.
    pub async fn with_tablespaces(
        at: TablespacePlace,
        major: u32,
        name: &str,
        host: u8,
        authority: &Authority,
    ) -> Self {
        let made = std::env::var_os("MATRIARCH_POSTGRESQL").map(PathBuf::from);
        let made = made.unwrap_or_else(|| "/var/cache/matriarch/postgresql".into());
        let programs = ["/usr/lib/postgresql".into(), made]
            .map(|it: PathBuf| it.join(format!("{major}/bin")))
            .into_iter()
            .find(|it| it.join("postgres").exists());
        let Some(programs) = programs else {
            panic!("PostgreSQL {major} is not installed: run `cargo xtask setup`")
        };
        Self::with_path(programs.into_os_string(), name, host, authority, at).await
    }

    async fn with_path(
        path: OsString,
        name: &str,
        host: u8,
        authority: &Authority,
        tablespaces: TablespacePlace,
    ) -> Self {
        // Short: a socket's path has at most 107 bytes.
        let base = std::env::temp_dir().join(format!("mt{}-{name}{host}", std::process::id()));
        let root = Root::new(&base);
        std::fs::create_dir_all(root.state()).unwrap();
        authority.write(&root, name);
        let socket = base.join("test.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let keeper = Command::new(env!("CARGO_BIN_EXE_matriarch-agent-test-processes"))
            .arg("keeper")
            .env("MATRIARCH_ROOT", &base)
            .env("MATRIARCH_TEST_SOCKET", &socket)
            .stdout(std::fs::File::create(base.join("keeper.log")).unwrap())
            .spawn()
            .unwrap();
        let number = u8::try_from(std::process::id() % 250).unwrap() + 1;
        let address = IpAddr::from([127, 77, number, host]);
        let options = AgentOptions {
            instance: name.to_owned(),
            namespace: "test".to_owned(),
            pod_uid: "uid".to_owned(),
            address,
            cluster: "c".to_owned(),
            identity: "matriarch".to_owned(),
            api_server: ("127.0.0.1".to_owned(), 1),
            root: root.clone(),
            path,
            own_address_only: true,
            tablespaces,
        };
        let (news_sender, news) = mpsc::unbounded_channel();
        let stream = accept(&listener);
        let (link, hello) = KeeperLink::over(stream, news_sender).await.unwrap();
        assert!(hello.locked, "the keeper holds the volume");
        let mut first = Known::default();
        first.spec.members = vec![name.to_owned()];
        first.spec.bootstrap = Bootstrap::Initdb(Box::new(Initdb {
            database: "app".to_owned(),
            owner: "app".to_owned(),
            post_init_application_sql: vec!["CREATE TABLE t (n int)".to_owned()],
            ..Initdb::default()
        }));
        first.spec.configuration_hash = "one".to_owned();
        let (known, seen) = watch::channel(Some(Arc::new(first)));
        let nowhere = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no API here"))
        });
        let client = kube::Client::new(nowhere, "test");
        let context = Context::new(options, Identity::Matriarch, client, link, seen);
        Self {
            root,
            context,
            keeper,
            address,
            name: name.to_owned(),
            base,
            listener,
            known,
            _news: news,
        }
    }

    /// The next agent's socket to the keeper.
    pub fn accept(&self) -> std::os::unix::net::UnixStream {
        accept(&self.listener)
    }

    /// Carries an action out.
    pub async fn run(&self, action: Action) -> Outcome {
        operation::run(&self.context, &action).await
    }

    /// Carries an action out that must succeed. One that the protocol asks for again until it has
    /// worked is tried again too: a disk may stand still for longer than one answer may take.
    pub async fn done(&self, action: Action) {
        let tries = if matches!(action, Action::SetNames { .. }) { 10 } else { 1 };
        let mut outcome = self.run(action.clone()).await;
        for _ in 1..tries {
            if matches!(outcome, Outcome::Done) {
                break;
            }
            println!("{action:?}: {outcome:?}; again");
            outcome = self.run(action.clone()).await;
        }
        let good = matches!(outcome, Outcome::Done | Outcome::NewDirectory { .. });
        assert!(good, "{action:?}: {outcome:?}\n{}", self.log());
    }

    /// Changes the directive.
    pub fn direct(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.borrow().as_deref().cloned().unwrap();
        change(&mut known);
        self.known.send_replace(Some(Arc::new(known)));
    }

    /// The first column of the first row.
    pub async fn sql(&self, statement: &str) -> String {
        let session = self.context.new_session().await.unwrap();
        let value = session.value(statement, Duration::from_secs(10)).await.unwrap();
        value.unwrap_or_default()
    }

    /// As the others know it.
    pub fn member(&self) -> Member {
        Member {
            name: self.name.as_str().into(),
            incarnation: "".into(),
            address: Address {
                host: self.address.to_string(),
                postgres_port: POSTGRES_PORT,
                agent_port: 8000,
            },
        }
    }

    /// Processes that work in the data directory.
    pub fn processes(&self) -> Vec<rustix::process::Pid> {
        use matriarch_agent::keeper::processes::{DirectoryId, of_directory};
        DirectoryId::of(&self.root.pgdata()).map_or(Vec::new(), |it| of_directory(it).collect())
    }

    /// What keeper and PostgreSQL said.
    pub fn log(&self) -> String {
        let mut text = std::fs::read_to_string(self.base.join("keeper.log")).unwrap_or_default();
        text.push_str(&matriarch_agent::logs::tail::last_words(&self.root));
        text
    }
}

fn accept(listener: &UnixListener) -> std::os::unix::net::UnixStream {
    listener.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream,
            Err(_) if begun.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("no agent came: {error}"),
        }
    }
}

/// Waits until it is so.
pub async fn eventually(what: &str, so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
