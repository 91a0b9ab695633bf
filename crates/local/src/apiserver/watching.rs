//! Watches as streams of lines.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use matriarch_store::{
    Cause, Refusal, Store, WatchCursor, WatchEvent, WatchStart, status::Subject,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{ApiServer, answer, form::Form, request::Parameters, resources::Request};

/// How often a quiet watch is told how far it is.
const BOOKMARKS: Duration = Duration::from_secs(50);
/// How long a watch lasts when the client does not say.
const LONGEST: Duration = Duration::from_secs(30 * 60);

struct Watching {
    server: ApiServer,
    cursor: WatchCursor,
    first: Option<Vec<WatchEvent>>,
    durable: watch::Receiver<u64>,
    bookmarks: bool,
    until: Instant,
    ended: bool,
    form: Form,
    version: String,
    headings: bool,
}

/// Answers a watch: a stream that begins at once.
pub async fn answer(server: &ApiServer, request: &Request) -> Result<Response<Body>, Refusal> {
    let parameters = &request.parameters;
    let start = start(parameters)?;
    let text = |name: &str| parameters.get(name).unwrap_or_default().to_owned();
    let place = &request.place;
    let begun = server.store().watch(
        &place.resource,
        place.namespace.as_deref(),
        &text("labelSelector"),
        &text("fieldSelector"),
        &start,
    );
    let (cursor, first) = match begun {
        Ok(begun) => begun,
        // A watch that is too late is told so in the stream, as kube-apiserver does.
        Err(refusal @ Refusal::Expired(_)) => return Ok(stream_of(error_line(&refusal))),
        Err(refusal) => return Err(refusal),
    };
    let revision = server.store().revision();
    server.settle(revision).await?;
    let length = parameters.number("timeoutSeconds").map_or(LONGEST, Duration::from_secs);
    let watching = Watching {
        server: server.clone(),
        cursor,
        first: Some(first),
        durable: server.inner.journal.watch(),
        bookmarks: parameters.flag("allowWatchBookmarks"),
        until: Instant::now() + length.min(LONGEST),
        ended: false,
        form: Form::of(&request.headers, parameters),
        version: place.resource.version.clone(),
        headings: true,
    };
    let lines = stream::unfold(watching, |mut watching| async move {
        let bytes = watching.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), watching))
    });
    Ok(answer::typed(StatusCode::OK, "application/json", Body::from_stream(lines)))
}

fn stream_of(line: Bytes) -> Response<Body> {
    answer::typed(StatusCode::OK, "application/json", line)
}

fn start(parameters: &Parameters) -> Result<WatchStart, Refusal> {
    let version = parameters.get("resourceVersion");
    let not_older = parameters.get("resourceVersionMatch") == Some("NotOlderThan");
    if parameters.flag("sendInitialEvents") {
        if !not_older {
            return Err(Refusal::Invalid {
                subject: Subject {
                    group: "meta.k8s.io".into(),
                    kind: "ListOptions".into(),
                    name: String::new(),
                },
                causes: vec![Cause::forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                )],
            });
        }
        return Ok(WatchStart::InitialEvents);
    }
    match version {
        None | Some("0") => Ok(WatchStart::Now),
        Some(text) => Ok(WatchStart::After(matriarch_store::store::parse_revision(text)?)),
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = json!({"type": kind, "object": object}).to_string();
    text.push('\n');
    Bytes::from(text)
}

fn error_line(refusal: &Refusal) -> Bytes {
    line("ERROR", &refusal.to_status())
}

impl Watching {
    /// The next lines; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take()
            && !first.is_empty()
        {
            return Some(self.lines(&first));
        }
        let mut bookmark = Instant::now() + BOOKMARKS;
        while !self.ended {
            let durable = *self.durable.borrow_and_update();
            let polled = self.server.store().poll(&mut self.cursor, durable);
            match polled {
                Ok(events) if !events.is_empty() => return Some(self.lines(&events)),
                Ok(_) => {}
                Err(refusal) => {
                    self.ended = true;
                    return Some(error_line(&refusal));
                }
            }
            let wake = self.until.min(bookmark);
            tokio::select! {
                changed = self.durable.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.until {
                        return None;
                    }
                    bookmark = Instant::now() + BOOKMARKS;
                    if self.bookmarks {
                        return Some(self.lines(&[self.bookmark()]));
                    }
                }
            }
        }
        None
    }

    fn bookmark(&self) -> WatchEvent {
        Store::bookmark(&self.server.store(), &self.cursor, false)
    }

    fn lines(&mut self, events: &[WatchEvent]) -> Bytes {
        let now = (self.server.inner.clock)();
        let mut all = Vec::new();
        for event in events {
            let resource = self.cursor.resource();
            let shown = self.form.one(resource, &self.version, event.object(), self.headings, now);
            self.headings = false;
            all.extend_from_slice(&line(event.kind(), &shown));
        }
        Bytes::from(all)
    }
}
