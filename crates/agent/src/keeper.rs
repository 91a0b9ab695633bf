//! The keeper: PID 1 of the database pod (traps P1).
//!
//! One thread, no tokio. It starts and reaps PostgreSQL and the agent, holds the end of the right
//! to accept writes, and stops PostgreSQL by itself when that right is not prolonged (rule 5). The
//! agent may crash, be killed or be replaced by a newer binary while PostgreSQL runs on. The keeper
//! leaves only after PostgreSQL has stopped.

pub mod message;
pub mod processes;
pub mod renewal;
pub mod start_file;

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use crate::binary::exchange::Files;
use crate::container;
use crate::root::Root;
use matriarch_plan::protocol::{
    ContainerId, Keeper as RuleFive, KeeperCommand, KeeperEvent, Right,
};
use message::{BootTime, Ending, Notice, PostmasterSignal, Request, SIZE};
use processes::DirectoryId;
use renewal::Renewal;
use start_file::StartFile;

/// While PostgreSQL runs under a bound, the clock is looked at this often: a poll's own time does
/// not advance while the machine sleeps.
const TICK: Duration = Duration::from_millis(50);
/// An agent that says nothing for so long is killed and started anew.
const AGENT_SILENCE: Duration = Duration::from_secs(60);
/// First and longest wait before a dead agent is started again.
const RESTART_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// An agent that lived so long is started again at once.
const AGENT_SETTLED: Duration = Duration::from_secs(30);

/// An agent whose program is on trial has so long to say its first word, and on a primary at most
/// half of the time after which PostgreSQL would be stopped.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// An agent whose program is on trial may die so often.
const DEATHS_MAX: u32 = 3;
/// Exit code of an agent that has put another program into its own place.
pub const REPLACED: u8 = 10;

/// The log's writer has so long to write down why the server ended, also on a disk that is busy.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How the keeper is started.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// The pod's root directory.
    pub root: Root,
    /// Program and arguments of the agent; its standard input becomes the socket to the keeper.
    pub agent: Vec<OsString>,
    /// Program and arguments of a keeper.
    pub keeper: Vec<OsString>,
}

impl KeeperOptions {
    /// The root from `MATRIARCH_ROOT`; the agent is this program's `agent` command.
    ///
    /// # Errors
    /// If the path of this program cannot be told.
    pub fn from_environment() -> std::io::Result<Self> {
        // The path, not the open file: a newer binary under the same name is started next time.
        let program = std::env::current_exe()?.into_os_string();
        Ok(Self {
            root: Root::from_environment(),
            agent: vec![program.clone(), "agent".into()],
            keeper: vec![program, "keeper".into()],
        })
    }
}

/// Why the keeper cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Signals.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// prctl.
    #[error("cannot become the reaper of orphaned processes")]
    Reaper(#[source] std::io::Error),
    /// Directories of the pod.
    #[error("cannot make the pod's directories")]
    Directories(#[source] std::io::Error),
    /// The wait itself.
    #[error("cannot wait for events")]
    Wait(#[source] std::io::Error),
}

/// Runs until PostgreSQL has stopped and the pod may end.
#[must_use]
pub fn run(options: KeeperOptions) -> ExitCode {
    let id = renewal::container().unwrap_or_else(container::new_id);
    let root = options.root.clone();
    limit_core_dumps();
    if let Err(error) = container::write_last_words(&root, &id, None) {
        say("warning", &format!("the end of this container cannot be proved: {error}"));
    }
    match Keeper::begin(options, id.clone()).and_then(|mut keeper| keeper.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let reason = format!("{error}: {}", source.unwrap_or_default());
            say("error", &reason);
            // It stands in the log already.
            let _unheard = container::write_last_words(&root, &id, Some(&reason));
            ExitCode::FAILURE
        }
    }
}

/// Shared buffers stay out of core dumps: each backend's would have them all, and users' data with
/// them (core(5): 0x31 is private memory, huge pages and headers). What the keeper starts inherits it.
fn limit_core_dumps() {
    let given = std::env::var(matriarch_api::names::COREDUMP_FILTER_VARIABLE);
    let filter = given.unwrap_or_else(|_| "0x31".to_owned());
    if let Err(error) = std::fs::write("/proc/self/coredump_filter", &filter) {
        say("warning", &format!("core dumps are not limited to {filter}: {error}"));
    }
}

/// One JSON line, as the agent's log has them.
fn say(level: &str, message: &str) {
    let line = serde_json::json!({
        "level": level, "ts": jiff::Timestamp::now().to_string(), "logger": "keeper",
        "msg": message,
    });
    // A log that cannot be written must not end PID 1.
    let _unheard = writeln!(std::io::stdout(), "{line}");
}

struct Postmaster {
    pid: Pid,
    directory: DirectoryId,
    /// Set by an immediate stop: when to kill.
    fence: Option<BootTime>,
    by_rule_five: bool,
    killing: bool,
    /// Signals that wait until it handles them.
    early: Vec<Signal>,
    /// Set once it has been reaped; it is gone when its directory has no process left.
    ending: Option<(Ending, BootTime)>,
}

impl Postmaster {
    fn new(pid: Pid, directory: DirectoryId) -> Self {
        Self {
            pid,
            directory,
            fence: None,
            by_rule_five: false,
            killing: false,
            early: Vec::new(),
            ending: None,
        }
    }

    /// Passes on what the agent asks for. A PostgreSQL that has only begun would be ended by a signal
    /// that asks for something else: it waits. Whatever stops it does so at any time.
    fn pass_on(&mut self, signal: PostmasterSignal) {
        let number = signal.signal();
        match signal {
            PostmasterSignal::Smart | PostmasterSignal::Fast | PostmasterSignal::Immediate => {
                self.signal(number);
            }
            PostmasterSignal::Reload | PostmasterSignal::Wake => {
                if !self.early.contains(&number) {
                    self.early.push(number);
                }
                self.pass_early_on();
            }
        }
    }

    fn pass_early_on(&mut self) {
        let handles = |signal: &Signal| processes::handles(self.pid, *signal);
        let (now, later): (Vec<_>, _) = self.early.iter().copied().partition(handles);
        self.early = later;
        for signal in now {
            self.signal(signal);
        }
    }

    fn signal(&self, signal: Signal) {
        if self.ending.is_none() {
            // Not yet reaped, so the number is still its own.
            let _gone = kill_process(self.pid, signal);
        }
    }

    /// Stopped first, so that it starts no further process meanwhile; a killed postmaster alone
    /// leaves backends that can still commit (traps H9).
    fn kill(&mut self) {
        self.killing = true;
        self.signal(Signal::STOP);
        if !processes::kill_directory(self.directory, |pid| pid == self.pid) {
            self.signal(Signal::KILL);
        }
    }
}

struct Agent {
    pid: Pid,
    socket: UnixStream,
    started: BootTime,
    heard: BootTime,
    /// How long it has for its first word, if its program is on trial.
    first_word: Option<Duration>,
    partial: Vec<u8>,
}

impl Agent {
    /// For how long it may say nothing.
    fn patience(&self) -> Duration {
        self.first_word.filter(|_| self.heard == self.started).unwrap_or(AGENT_SILENCE)
    }
}

struct Keeper {
    options: KeeperOptions,
    container: ContainerId,
    children: UnixStream,
    termination: UnixStream,
    postmaster: Option<Postmaster>,
    rule_five: RuleFive,
    agent: Option<Agent>,
    /// When to start the agent, and how long to wait after its next early death.
    restart_at: BootTime,
    restart_wait: Duration,
    /// Deaths of agents whose program is on trial.
    deaths: u32,
    terminating: bool,
    leaving: bool,
    lock: Option<File>,
    renewal: Renewal,
}

/// A stream that becomes readable when the signal arrives.
fn signal_stream(signals: &[i32]) -> Result<UnixStream, Error> {
    let (receiver, sender) = UnixStream::pair().map_err(Error::Signals)?;
    receiver.set_nonblocking(true).map_err(Error::Signals)?;
    sender.set_nonblocking(true).map_err(Error::Signals)?;
    for signal in signals {
        let sender = sender.try_clone().map_err(Error::Signals)?;
        signal_hook::low_level::pipe::register(*signal, sender).map_err(Error::Signals)?;
    }
    Ok(receiver)
}

/// Empties a signal stream; true if there was something in it.
fn drained(mut stream: &UnixStream) -> bool {
    let mut buffer = [0; 64];
    let mut any = false;
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
        any = true;
    }
    any
}

impl Keeper {
    fn begin(options: KeeperOptions, container: ContainerId) -> Result<Self, Error> {
        let children = signal_stream(&[SIGCHLD])?;
        let termination = signal_stream(&[SIGTERM, SIGINT])?;
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))
            .map_err(|error| Error::Reaper(error.into()))?;
        for directory in [options.root.run(), options.root.log(), options.root.state()] {
            std::fs::create_dir_all(directory).map_err(Error::Directories)?;
        }
        let mut keeper = Self {
            options,
            container,
            children,
            termination,
            postmaster: None,
            rule_five: RuleFive::new(),
            agent: None,
            restart_at: BootTime::default(),
            restart_wait: RESTART_WAIT.0,
            deaths: 0,
            terminating: false,
            leaving: false,
            lock: None,
            renewal: Renewal::None,
        };
        keeper.take_over();
        Ok(keeper)
    }

    fn serve(&mut self) -> Result<(), Error> {
        loop {
            if self.leaving && self.postmaster.is_none() {
                self.end_agent();
                return Ok(());
            }
            self.renew();
            self.keep_agent();
            self.wait()?;
            if drained(&self.termination) && !self.terminating {
                self.terminating = true;
                say("info", "the pod is asked to end");
                self.tell(Notice::Terminate);
            }
            drained(&self.children);
            self.reap();
            self.hear();
            self.enforce(BootTime::now());
            self.sweep();
        }
    }

    fn wait(&self) -> Result<(), Error> {
        let pause = match &self.postmaster {
            Some(it) if it.ending.is_some() || it.killing => Duration::from_millis(2),
            Some(it) if it.fence.is_some() || !it.early.is_empty() => Duration::from_millis(10),
            Some(_) if self.rule_five.right().is_some() => TICK,
            _ if self.agent.is_none() => RESTART_WAIT.0,
            _ => Duration::from_secs(1),
        };
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(pause.subsec_nanos()),
        };
        let mut descriptors = vec![
            PollFd::new(&self.children, PollFlags::IN),
            PollFd::new(&self.termination, PollFlags::IN),
        ];
        if let Some(agent) = &self.agent {
            descriptors.push(PollFd::new(&agent.socket, PollFlags::IN));
        }
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Error::Wait(error.into())),
        }
    }

    /// Starts the agent when it is due, and ends one that is silent.
    fn keep_agent(&mut self) {
        let now = BootTime::now();
        match &self.agent {
            Some(agent) if now.since(agent.heard) > agent.patience() => {
                say("warning", "the agent is silent and is killed");
                if agent.first_word.is_some() {
                    self.deaths = DEATHS_MAX;
                }
                self.end_agent();
            }
            None if now >= self.restart_at => {
                // Programs that the last one had started would work beside those of the next.
                let running = self.postmaster.as_ref();
                let (directory, pid) = (running.map(|it| it.directory), running.map(|it| it.pid));
                if processes::kill_orphans(directory, pid) {
                    return;
                }
                if let Err(error) = self.start_agent(now) {
                    say("error", &format!("cannot start the agent: {error}"));
                    self.restart_later(now);
                    self.judge_program();
                }
            }
            Some(_) | None => {}
        }
    }

    fn restart_later(&mut self, now: BootTime) {
        self.restart_at = now.after(self.restart_wait);
        self.restart_wait = (self.restart_wait * 2).min(RESTART_WAIT.1);
    }

    fn start_agent(&mut self, now: BootTime) -> std::io::Result<()> {
        let (own, theirs) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        let Some((program, arguments)) = self.options.agent.split_first() else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(program);
        let child = renewal::without_state(&mut command)
            .args(arguments)
            .envs([container::variable(&self.container)])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        let Some(pid) = pid_of(child.id()) else { return Err(ErrorKind::Other.into()) };
        self.lock_volume();
        let first_word = self.first_word(now);
        let (started, heard, partial) = (now, now, Vec::new());
        self.agent = Some(Agent { pid, socket: own, started, heard, first_word, partial });
        self.tell(self.hello());
        Ok(())
    }

    fn first_word(&self, now: BootTime) -> Option<Duration> {
        let half = |right: Right| Duration::from_millis(right.quit_at().since(now.moment()).0) / 2;
        let right = self.rule_five.right();
        let limit = right.map_or(FIRST_WORD, |right| half(right).min(FIRST_WORD));
        Files::new(&self.options.root).on_trial().then_some(limit)
    }

    fn end_agent(&mut self) {
        if let Some(agent) = &self.agent {
            // Reaped in the loop, or by whoever reaps the container.
            let _gone = kill_process(agent.pid, Signal::KILL);
        }
    }

    fn tell(&mut self, notice: Notice) {
        let Some(agent) = &mut self.agent else { return };
        if let Err(error) = agent.socket.write_all(&notice.encode()) {
            // It reads nothing: a new one learns everything from its first message.
            say("warning", &format!("the agent does not listen and is killed: {error}"));
            self.end_agent();
        }
    }

    /// Reads what the agent says.
    fn hear(&mut self) {
        let mut requests = Vec::new();
        if let Some(agent) = &mut self.agent {
            let mut buffer = [0; SIZE * 16];
            while let Ok(length) = agent.socket.read(&mut buffer) {
                if length == 0 {
                    break;
                }
                agent.heard = BootTime::now();
                agent.partial.extend_from_slice(&buffer[..length]);
            }
            let whole = agent.partial.len() / SIZE * SIZE;
            for chunk in agent.partial.drain(..whole).as_slice().chunks_exact(SIZE) {
                let mut bytes = [0; SIZE];
                bytes.copy_from_slice(chunk);
                requests.extend(Request::decode(&bytes));
            }
        }
        for request in requests {
            self.obey(request);
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Start => self.start_postgres(),
            Request::Signal(signal) => {
                if let Some(postmaster) = &mut self.postmaster {
                    postmaster.pass_on(signal);
                }
            }
            Request::Arm(right) => self.follow(KeeperEvent::Armed(Some(right))),
            Request::Disarm => self.follow(KeeperEvent::Armed(None)),
            Request::Fence { grace } => self.fence(grace),
            Request::Alive => {}
            Request::Leave => self.leaving = true,
            Request::Renew => self.begin_renewal(),
        }
    }

    fn start_postgres(&mut self) {
        let outcome = self.try_start_postgres();
        match outcome {
            Ok(pid) => {
                say("info", "PostgreSQL started");
                self.tell(Notice::Started { pid: pid.as_raw_nonzero().get().unsigned_abs() });
            }
            Err(error) => {
                say("error", &format!("PostgreSQL not started: error {error}"));
                self.tell(Notice::StartFailed { error });
            }
        }
    }

    fn try_start_postgres(&mut self) -> Result<Pid, u32> {
        if self.postmaster.is_some() || !self.rule_five.may_start(BootTime::now().moment()) {
            return Err(message::ALREADY_RUNNING);
        }
        self.lock_volume();
        if self.lock.is_none() {
            return Err(message::NOT_LOCKED);
        }
        let file =
            StartFile::read(&self.options.root.start_file()).ok_or(message::BAD_START_FILE)?;
        let number = |error: std::io::Error| error.raw_os_error().unwrap_or(0).unsigned_abs();
        let directory = DirectoryId::of(&file.data_directory).map_err(number)?;
        if processes::of_directory(directory).next().is_some() {
            return Err(message::ALREADY_RUNNING);
        }
        let standard_error = File::create(&file.standard_error).map_err(number)?;
        let (program, arguments) = file.arguments.split_first().ok_or(message::BAD_START_FILE)?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(file.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&file.data_directory)
            .stdin(Stdio::null())
            .stdout(standard_error.try_clone().map_err(number)?)
            .stderr(standard_error)
            .spawn()
            .map_err(number)?;
        let pid = pid_of(child.id()).ok_or(0_u32)?;
        self.postmaster = Some(Postmaster::new(pid, directory));
        self.follow(KeeperEvent::PostmasterStarted);
        Ok(pid)
    }

    /// One pod at a time has the data volume, whatever its access mode (traps H5).
    fn lock_volume(&mut self) {
        if self.lock.is_some() {
            return;
        }
        let path = self.options.root.state().join("lock");
        let Ok(file) = File::options().create(true).truncate(false).write(true).open(path) else {
            return;
        };
        let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::fcntl_lock(&file, operation).is_ok() {
            self.lock = Some(file);
        }
    }

    /// Collects every child that has ended: also those of other process groups, which every
    /// backend of a killed postmaster is.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(postmaster) = self.postmaster.as_mut().filter(|it| it.pid == pid) {
                postmaster.ending = Some((ending(status), BootTime::now()));
            } else if let Some(agent) = self.agent.take_if(|it| it.pid == pid) {
                self.lose_agent(&agent, status);
            } else {
                self.checked(pid, status);
            }
        }
    }

    fn lose_agent(&mut self, agent: &Agent, status: WaitStatus) {
        let now = BootTime::now();
        let ending = ending(status);
        if ending == Ending::Code(REPLACED) {
            say("info", "another program takes the agent's place");
            (self.restart_at, self.restart_wait, self.deaths) = (now, RESTART_WAIT.0, 0);
            return;
        }
        let wanted = self.terminating && ending == Ending::Code(0);
        say(if wanted { "info" } else { "warning" }, &format!("the agent ended: {ending:?}"));
        if now.since(agent.started) > AGENT_SETTLED {
            self.restart_wait = RESTART_WAIT.0;
        }
        self.restart_later(now);
        self.judge_program();
        if self.terminating && self.postmaster.is_none() {
            self.leaving = true;
        }
    }

    /// An agent died. A program on trial whose agents die again and again gives its place back to
    /// the former one.
    fn judge_program(&mut self) {
        let files = Files::new(&self.options.root);
        self.deaths = if files.on_trial() { self.deaths + 1 } else { 0 };
        if self.deaths < DEATHS_MAX {
            return;
        }
        self.deaths = 0;
        self.restart_wait = RESTART_WAIT.0;
        match files.go_back() {
            Ok(_) => say("warning", "the new program fails: the former one takes its place"),
            Err(error) => say("error", &format!("the former program cannot be put back: {error}")),
        }
    }

    /// Rule 5, and the kill of an immediate stop.
    fn enforce(&mut self, now: BootTime) {
        self.follow(KeeperEvent::Tick);
        let Some(postmaster) = &mut self.postmaster else { return };
        postmaster.pass_early_on();
        if postmaster.killing || postmaster.fence.is_some_and(|kill| now >= kill) {
            postmaster.kill();
        }
    }

    /// Tells the rule what happened and does what it says.
    fn follow(&mut self, event: KeeperEvent) {
        for command in self.rule_five.on(event, BootTime::now().moment()) {
            let Some(postmaster) = &mut self.postmaster else { return };
            postmaster.by_rule_five = true;
            match command {
                KeeperCommand::QuitPostmaster => {
                    say("warning", "the right to accept writes runs out: PostgreSQL is stopped");
                    postmaster.signal(Signal::QUIT);
                }
                KeeperCommand::FreezePostmaster => postmaster.signal(Signal::STOP),
                // One after the other and again until nothing is left, without waiting here.
                KeeperCommand::KillProcesses | KeeperCommand::KillPostmaster => {
                    if !postmaster.killing {
                        say("warning", "the right to accept writes has run out: kill");
                    }
                    postmaster.kill();
                }
            }
        }
    }

    fn fence(&mut self, grace: Duration) {
        if let Some(postmaster) = &mut self.postmaster {
            postmaster.signal(Signal::QUIT);
            let kill = BootTime::now().after(grace);
            postmaster.fence = Some(postmaster.fence.map_or(kill, |before| before.min(kill)));
        }
    }

    /// After the postmaster's end: nothing of its directory may live on. The log's writer goes
    /// last and by itself, or nobody would learn why the server ended.
    fn sweep(&mut self) {
        let Some(postmaster) = &self.postmaster else { return };
        let Some((ending, reaped)) = postmaster.ending else { return };
        let waits = !postmaster.killing && BootTime::now() < reaped.after(LAST_WORDS);
        let spared = |pid| waits && processes::may_be_logger(pid);
        if processes::kill_directory(postmaster.directory, spared)
            || processes::of_directory(postmaster.directory).next().is_some()
        {
            return;
        }
        let by_rule_five = postmaster.by_rule_five;
        self.postmaster = None;
        self.follow(KeeperEvent::ProcessesGone);
        say("info", &format!("PostgreSQL ended: {ending:?}"));
        self.tell(Notice::Exited { ending, by_rule_five });
        if self.terminating && self.agent.is_none() {
            self.leaving = true;
        }
    }
}

fn pid_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn ending(status: WaitStatus) -> Ending {
    let low = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Code(low(code)),
        (None, Some(signal)) => Ending::Signal(low(signal)),
        (None, None) => Ending::Code(u8::MAX),
    }
}
