//! One line of a log.

use serde_json::Value;

/// A line of a pod's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub pod: String,
    /// As it was written.
    pub text: String,
    /// Its time as nanoseconds; of a line without one, that of the line before.
    pub time: Option<i128>,
}

/// Reads one line.
pub fn parse(pod: &str, text: &str) -> Line {
    let said: Option<Value> = serde_json::from_str(text).ok();
    let time = said.as_ref().and_then(|said| said["ts"].as_str().or(said["timestamp"].as_str()));
    let time = time.and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let time = time.map(jiff::Timestamp::as_nanosecond);
    Line { pod: pod.to_owned(), text: text.to_owned(), time }
}

/// Reads a whole log.
pub fn parse_all(pod: &str, log: &str) -> Vec<Line> {
    let mut last = None;
    let lines = log.lines().map(|text| {
        let mut line = parse(pod, text);
        line.time = line.time.or(last);
        last = line.time;
        line
    });
    lines.collect()
}

/// `time LEVEL pod logger message`, and what else is in the line.
pub fn pretty(line: &Line) -> String {
    let Ok(Value::Object(mut said)) = serde_json::from_str::<Value>(&line.text) else {
        return format!("{} {}", line.pod, line.text);
    };
    let mut take = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| said.remove(*key));
        found.map(|value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        })
    };
    let time = take(&["ts", "timestamp"]).unwrap_or_default();
    let level = take(&["level"]).unwrap_or_default().to_uppercase();
    let logger = take(&["logger", "target"]).unwrap_or_default();
    let message = take(&["msg", "message"]).unwrap_or_default();
    // The pod's name is in the line already.
    take(&["logging_pod"]);
    let record = said.remove("record");
    let message = match record.as_ref().map(|record| &record["message"]) {
        Some(Value::String(text)) => {
            let severity = record.as_ref().and_then(|record| record["error_severity"].as_str());
            severity.map_or_else(|| text.clone(), |severity| format!("{severity}: {text}"))
        }
        Some(_) | None => message,
    };
    let details = record.as_ref().map(postgres_details).unwrap_or_default();
    let rest: Vec<String> = said.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    let head = [time.as_str(), &level, &line.pod, &logger, &message];
    let head: Vec<&str> = head.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{}{details}{}", head.join(" "), rest.concat())
}

/// What PostgreSQL says beside its message, where it helps.
fn postgres_details(record: &Value) -> String {
    let parts = ["detail", "hint", "query", "database_name", "user_name"];
    let told = parts.iter().filter_map(|key| {
        let text = record[*key].as_str().filter(|text| !text.is_empty())?;
        Some(format!(" {key}={text:?}"))
    });
    told.collect()
}
