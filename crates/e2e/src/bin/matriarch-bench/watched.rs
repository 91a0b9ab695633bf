//! The operator as a process of its own, with the account and the rights that an installation gives
//! it: what it occupies, how long it computes, and what it asks the API server for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use matriarch_e2e::apiserver::ApiServer;
use matriarch_e2e::local::Machine;
use matriarch_operator::install;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use serde_json::json;

use crate::figures::{Memory, memory};

/// Longest time until it ends after a signal.
const END: Duration = Duration::from_secs(60);

/// Ticks in a second, in /proc: USER_HZ, which is 100 on every Linux that we run on.
const TICKS: u64 = 100;

/// An operator that runs; if it ends by itself it is started again, as kubelet does.
pub struct Operator {
    kubeconfig: PathBuf,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
}

struct State {
    child: Child,
    most: Memory,
    /// What former processes computed.
    former: Duration,
    /// How often it had to be started again.
    restarts: u32,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let mut state = self.state();
        let _ = state.child.kill();
        let _ = state.child.wait();
    }
}

/// Makes the operator's namespace, definitions, account and roles; the kubeconfig of that account.
///
/// # Errors
/// If the API server refuses an object.
pub async fn install(server: &ApiServer) -> Result<PathBuf> {
    let printed = Command::new(Machine::binary()?).args(["install", "generate"]).output()?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let mut kubectl = server.kubectl();
    kubectl.args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = kubectl.spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("no input")?, &printed.stdout)?;
    ensure!(child.wait()?.success(), "kubectl apply failed");
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client().await?, install::NAMESPACE);
    let spec: TokenRequestSpec =
        serde_json::from_value(json!({ "audiences": [], "expirationSeconds": 36_000 }))?;
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let name = install::Options::default().name();
    let answer = accounts.create_token_request(&name, &PostParams::default(), &request).await?;
    let token = answer.status.context("a request for a token is answered with one")?.token;
    server.kubeconfig_for("operator", &token)
}

impl Operator {
    /// Starts the program as its Deployment does.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(kubeconfig: &Path) -> Result<Self> {
        let state = State {
            child: spawn(kubeconfig)?,
            most: Memory::default(),
            former: Duration::ZERO,
            restarts: 0,
        };
        let operator = Self {
            kubeconfig: kubeconfig.to_owned(),
            state: Arc::new(Mutex::new(state)),
            ends: Arc::default(),
        };
        let (kubeconfig, state) = (kubeconfig.to_owned(), operator.state.clone());
        let ends = operator.ends.clone();
        std::thread::spawn(move || {
            let mut computed = Duration::ZERO;
            while !ends.load(Ordering::Relaxed) {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = state.look(&kubeconfig, &mut computed) {
                    eprintln!("operator: {error:#}");
                }
                drop(state);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(operator)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it occupies now.
    ///
    /// # Errors
    /// If it has ended.
    pub fn memory(&self) -> Result<Memory> {
        memory(pid(&self.state().child)?).with_context(|| format!("it has ended: {}", self.said()))
    }

    /// The most that it has occupied since the last question.
    pub fn most(&self) -> Memory {
        std::mem::take(&mut self.state().most)
    }

    /// How often it had to be started again since the last question.
    pub fn restarts(&self) -> u32 {
        std::mem::take(&mut self.state().restarts)
    }

    /// For how long it has computed since it began.
    ///
    /// # Errors
    /// If it has ended.
    pub fn computed(&self) -> Result<Duration> {
        let state = self.state();
        Ok(state.former + computed(pid(&state.child)?)?)
    }

    /// Ends it as Kubernetes does.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(self) -> Result<()> {
        self.ends.store(true, Ordering::Relaxed);
        let mut state = self.state();
        let pid = Pid::from_raw(pid(&state.child)?).context("a process has a number")?;
        rustix::process::kill_process(pid, Signal::TERM)?;
        let begun = Instant::now();
        while state.child.try_wait()?.is_none() {
            ensure!(begun.elapsed() < END, "the operator does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The end of its log.
    fn said(&self) -> String {
        let text = std::fs::read_to_string(self.kubeconfig.with_extension("log"));
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl State {
    fn look(&mut self, kubeconfig: &Path, known: &mut Duration) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            eprintln!("the operator ended ({status}) and is started again");
            self.child = spawn(kubeconfig)?;
            self.former += std::mem::take(known);
            self.restarts += 1;
            return Ok(());
        }
        let pid = pid(&self.child)?;
        // Between the two it may end; the next look sees that.
        if let (Ok(now), Ok(computed)) = (memory(pid), computed(pid)) {
            self.most.resident = self.most.resident.max(now.resident);
            self.most.anonymous = self.most.anonymous.max(now.anonymous);
            *known = computed;
        }
        Ok(())
    }
}

fn pid(child: &Child) -> Result<i32> {
    Ok(i32::try_from(child.id())?)
}

fn computed(pid: i32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name ends with a parenthesis")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS))
}

fn spawn(kubeconfig: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(kubeconfig.with_extension("log"))?;
    Ok(Command::new(Machine::binary()?)
        .args(["operator", "--leader-elect", "--metrics-address=127.0.0.1:0"])
        .arg(format!("--agent-url=https://matriarch-operator.{}.svc:8443", install::NAMESPACE))
        .args(["--agent-listen=127.0.0.1:0", "--operator-image=ghcr.io/matriarch/matriarch:0"])
        .env("KUBECONFIG", kubeconfig)
        .env("POD_NAME", "matriarch-operator-0")
        .env("NAMESPACE", install::NAMESPACE)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?)
}

/// A line of the API server's audit log.
#[derive(Deserialize)]
struct Entry {
    verb: String,
    user: User,
    #[serde(rename = "objectRef")]
    object: Option<Object>,
    #[serde(rename = "responseStatus")]
    response: Option<Response>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct Object {
    resource: String,
    #[serde(default)]
    subresource: String,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    code: u16,
}

/// What was asked for between two looks at the audit log.
#[derive(Default)]
pub struct Requests {
    /// By verb and resource; watches are not among them, for they last.
    pub by_kind: BTreeMap<String, u64>,
    /// Those that were turned away because there were too many.
    pub throttled: u64,
}

impl Requests {
    /// All of them.
    pub fn count(&self) -> u64 {
        self.by_kind.values().sum()
    }

    /// The commonest ones.
    pub fn commonest(&self, most: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> =
            self.by_kind.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all.truncate(most);
        all
    }
}

/// Reads the audit log from where it stopped last.
pub struct Audit {
    path: PathBuf,
    offset: u64,
}

impl Audit {
    /// From the beginning.
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0 }
    }

    /// What the operator has asked for since the last look.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn since(&mut self) -> Result<Requests> {
        let mut file = File::open(&self.path).context("the API server writes no audit log")?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::new(file);
        let mut requests = Requests::default();
        let mut line = String::new();
        loop {
            line.clear();
            let bytes = reader.read_line(&mut line)?;
            if bytes == 0 || !line.ends_with('\n') {
                // The last line may be on its way.
                return Ok(requests);
            }
            self.offset += u64::try_from(bytes)?;
            let entry: Entry = serde_json::from_str(&line).context("no audit entry")?;
            if entry.verb == "watch" || !entry.user.username.starts_with("system:serviceaccount:") {
                continue;
            }
            if entry.response.is_some_and(|response| response.code == 429) {
                requests.throttled += 1;
            }
            let of = entry.object.map_or_else(String::new, |it| match it.subresource.as_str() {
                "" => it.resource,
                subresource => format!("{}/{subresource}", it.resource),
            });
            *requests.by_kind.entry(format!("{} {of}", entry.verb)).or_default() += 1;
        }
    }
}
