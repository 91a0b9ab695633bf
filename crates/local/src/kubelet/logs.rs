//! Logs of containers: each writes to its file directly, so it goes on when we are gone. The file
//! is cut from outside when it has grown.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use crate::layout::Layout;

/// A file longer than this is moved on to `.1`.
const LONGEST: u64 = 16 << 20;

/// Which part of a log is wanted, in the words of the API's `pods/log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// Goes on with what is written later.
    pub follow: bool,
    /// Only so many last lines.
    pub tail_lines: Option<usize>,
    /// The run before the last start.
    pub previous: bool,
}

/// The last `limit` bytes of a file, from a beginning of a line.
pub(super) fn tail(path: &Path, limit: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if length <= limit {
        return Ok(text);
    }
    Ok(text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or(text))
}

/// Reads a log as asked. The stream ends at the end of the file, or never with `follow`.
pub fn read(layout: &Layout, request: &LogRequest) -> io::Result<BoxStream<'static, Bytes>> {
    let current = layout.log(&request.namespace, &request.pod, &request.uid, &request.container);
    let path = if request.previous { previous(&current) } else { current };
    let mut bytes = fs::read(&path)?;
    let position = bytes.len() as u64;
    if let Some(lines) = request.tail_lines {
        bytes.drain(..start_of_last(&bytes, lines));
    }
    let first = stream::once(async move { Bytes::from(bytes) });
    if !request.follow {
        return Ok(first.boxed());
    }
    Ok(first.chain(follow(path, position)).boxed())
}

fn start_of_last(bytes: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return bytes.len();
    }
    let end = bytes.len() - usize::from(bytes.last() == Some(&b'\n'));
    let mut seen = 0;
    for (position, byte) in bytes[..end].iter().enumerate().rev() {
        if *byte == b'\n' {
            seen += 1;
            if seen == lines {
                return position + 1;
            }
        }
    }
    0
}

fn follow(path: PathBuf, position: u64) -> impl futures::Stream<Item = Bytes> {
    stream::unfold((path, position), |(path, mut position)| async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut file = File::open(&path).ok()?;
            let length = file.metadata().ok()?.len();
            if length < position {
                // It was cut.
                position = 0;
            }
            if length == position {
                continue;
            }
            file.seek(SeekFrom::Start(position)).ok()?;
            let mut bytes = Vec::new();
            file.take(length - position).read_to_end(&mut bytes).ok()?;
            position += bytes.len() as u64;
            return Some((Bytes::from(bytes), (path, position)));
        }
    })
}

fn previous(log: &Path) -> PathBuf {
    log.with_extension("previous.log")
}

/// Keeps the log of the last run beside the one that begins.
pub(super) fn set_aside(log: &Path) -> io::Result<()> {
    match fs::rename(log, previous(log)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Cuts every log that has grown too long. What is written between the copy and the cut is lost;
/// the writer need not know.
pub fn rotate(layout: &Layout) -> io::Result<()> {
    for pod in fs::read_dir(layout.logs())? {
        for file in fs::read_dir(pod?.path())? {
            let path = file?.path();
            let grown = path.extension().is_some_and(|extension| extension == "log")
                && path.metadata().is_ok_and(|metadata| metadata.len() > LONGEST);
            if grown {
                fs::copy(&path, path.with_extension("log.1"))?;
                OpenOptions::new().write(true).open(&path)?.set_len(0)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_is_read_as_asked_and_followed() {
        use std::io::Write;
        let state = std::env::temp_dir().join(format!("m-logs-{}", std::process::id()));
        let layout = Layout::make(&state).unwrap();
        let mut request = LogRequest {
            namespace: "default".to_owned(),
            pod: "c-1".to_owned(),
            uid: "u".to_owned(),
            container: "postgres".to_owned(),
            tail_lines: Some(2),
            ..LogRequest::default()
        };
        let path = layout.log("default", "c-1", "u", "postgres");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let all: Vec<Bytes> = read(&layout, &request).unwrap().collect().await;
        assert_eq!(all, [Bytes::from("two\nthree\n")]);
        request.follow = true;
        let mut stream = read(&layout, &request).unwrap();
        stream.next().await.unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"four\n").unwrap();
        assert_eq!(stream.next().await.unwrap(), Bytes::from("four\n"));
        fs::remove_dir_all(state).unwrap();
    }
}
