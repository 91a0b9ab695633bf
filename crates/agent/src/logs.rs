//! The container's log: one JSON line per message, the agent's own and PostgreSQL's.
//!
//! PostgreSQL's collector writes files, and a thread of the agent reads them, prints what is new
//! and removes those that are done. Files were chosen over a pipe: a pipe without a reader stops
//! the collector, and with it every backend that has something to say, for as long as the agent is
//! away; a file waits for the next agent, which goes on where the last one stopped.
//!
//! Everything is printed by that one thread: a standard output that blocks must not stop the
//! agent, which would lose the Lease for it.

pub mod record;
pub mod tail;

use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber, span};

use crate::root::Root;
use tail::Tail;

/// Lines of the agent that wait to be printed; more are dropped.
const WAITING_LINES: usize = 4096;
/// A message. In a box, because the channel has room for all that may wait from its beginning.
type Line = Box<Map<String, Value>>;
/// How often PostgreSQL's files are looked at.
const PERIOD: Duration = Duration::from_millis(200);

static LEVEL: AtomicU8 = AtomicU8::new(2);

/// Sets the level of the agent's log: error, warning, info, debug, trace. Others change nothing.
pub fn set_level(name: &str) {
    let number = match name {
        "error" => 0,
        "warning" => 1,
        "info" => 2,
        "debug" => 3,
        "trace" => 4,
        _ => return,
    };
    LEVEL.store(number, Ordering::Relaxed);
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

/// Starts printing. A second call in one process changes nothing.
pub fn begin(root: &Root, instance: &str) {
    let (sender, receiver) = sync_channel(WAITING_LINES);
    let printer = Printer { tail: Tail::new(root), receiver, instance: instance.to_owned() };
    if tracing::subscriber::set_global_default(Log { sender }).is_err() {
        tracing::warn!("another log was begun before: the agent's messages go there");
    }
    let spawned = std::thread::Builder::new()
        .name("log".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || printer.run());
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot start the thread that prints the log");
    }
}

struct Printer {
    tail: Tail,
    receiver: Receiver<Line>,
    instance: String,
}

impl Printer {
    fn run(mut self) {
        loop {
            match self.receiver.recv_timeout(PERIOD) {
                Ok(line) => {
                    self.print(*line);
                    while let Ok(line) = self.receiver.try_recv() {
                        self.print(*line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(PERIOD),
            }
            let instance = self.instance.clone();
            self.tail.read(|line| print(&instance, line));
        }
    }

    fn print(&self, line: Map<String, Value>) {
        print(&self.instance, line);
    }
}

fn print(instance: &str, mut line: Map<String, Value>) {
    line.insert("logging_pod".to_owned(), Value::String(instance.to_owned()));
    let mut text = Value::Object(line).to_string();
    text.push('\n');
    // A log that cannot be written is no reason to end.
    let _unheard = std::io::stdout().lock().write_all(text.as_bytes());
}

/// The subscriber of the agent's own messages. Spans carry nothing that the log shows.
struct Log {
    sender: SyncSender<Line>,
}

impl Subscriber for Log {
    /// Asked again for each message: the level may change at any time.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let limit = LEVEL.load(Ordering::Relaxed);
        let own = metadata.target().starts_with("matriarch");
        // It calls each request an error that is not answered; who asked says what that means.
        if metadata.target().starts_with("kube_client") && limit < 4 {
            return false;
        }
        // What libraries say below a warning is of use only to those who ask for everything.
        number(*metadata.level()) <= if own || limit >= 4 { limit } else { limit.min(1) }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut line = Map::new();
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        line.insert("level".to_owned(), json!(level));
        line.insert("ts".to_owned(), json!(jiff::Timestamp::now().to_string()));
        let program = fields.0.remove("program").filter(Value::is_string);
        line.insert("logger".to_owned(), program.unwrap_or_else(|| json!("instance-manager")));
        line.insert("msg".to_owned(), fields.0.remove("message").unwrap_or_default());
        line.extend(fields.0);
        // Full: the container's log does not take more.
        let _dropped = self.sender.try_send(Box::new(line));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name().to_owned(), json!(matriarch_api::causes::chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(format!("{value:?}")));
    }
}
