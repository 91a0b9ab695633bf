//! PostgreSQL's own log formats, brought to the record that CloudNativePG's users know: the columns
//! of csvlog, as strings.

use serde_json::{Map, Value};

/// Columns of csvlog of PostgreSQL 14, in order.
const COLUMNS: [&str; 26] = [
    "log_time",
    "user_name",
    "database_name",
    "process_id",
    "connection_from",
    "session_id",
    "session_line_num",
    "command_tag",
    "session_start_time",
    "virtual_transaction_id",
    "transaction_id",
    "error_severity",
    "sql_state_code",
    "message",
    "detail",
    "hint",
    "internal_query",
    "internal_query_pos",
    "context",
    "query",
    "query_pos",
    "location",
    "application_name",
    "backend_type",
    "leader_pid",
    "query_id",
];

/// Keys of jsonlog and the column that each is.
const KEYS: [(&str, &str); 23] = [
    ("timestamp", "log_time"),
    ("user", "user_name"),
    ("dbname", "database_name"),
    ("pid", "process_id"),
    ("session_id", "session_id"),
    ("line_num", "session_line_num"),
    ("ps", "command_tag"),
    ("session_start", "session_start_time"),
    ("vxid", "virtual_transaction_id"),
    ("txid", "transaction_id"),
    ("error_severity", "error_severity"),
    ("state_code", "sql_state_code"),
    ("message", "message"),
    ("detail", "detail"),
    ("hint", "hint"),
    ("internal_query", "internal_query"),
    ("internal_position", "internal_query_pos"),
    ("context", "context"),
    ("statement", "query"),
    ("cursor_position", "query_pos"),
    ("application_name", "application_name"),
    ("backend_type", "backend_type"),
    ("leader_pid", "leader_pid"),
];

/// A line of the log with this record.
#[must_use]
pub fn line(record: Map<String, Value>) -> Map<String, Value> {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
    let level = match text("error_severity") {
        "PANIC" | "FATAL" | "ERROR" => "error",
        "WARNING" => "warning",
        severity if severity.starts_with("DEBUG") => "debug",
        _ => "info",
    };
    let mut line = Map::new();
    line.insert("level".to_owned(), level.into());
    line.insert("ts".to_owned(), jiff::Timestamp::now().to_string().into());
    line.insert("logger".to_owned(), "postgres".into());
    line.insert("msg".to_owned(), "record".into());
    line.insert("record".to_owned(), record.into());
    line
}

/// A line that is no record: what a library or the postmaster printed before its log was open.
#[must_use]
pub fn plain(text: &str) -> Map<String, Value> {
    let mut line = line(Map::new());
    line.remove("record");
    line.insert("msg".to_owned(), text.into());
    line
}

/// Reads one line of jsonlog.
#[must_use]
pub fn from_json(text: &str) -> Option<Map<String, Value>> {
    let Value::Object(said) = serde_json::from_str(text).ok()? else { return None };
    let string = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut record = Map::new();
    for (key, column) in KEYS {
        if let Some(value) = said.get(key) {
            record.insert(column.to_owned(), string(value).into());
        }
    }
    if let Some(host) = said.get("remote_host") {
        let port = said.get("remote_port").map_or(String::new(), |it| format!(":{}", string(it)));
        record.insert("connection_from".to_owned(), format!("{}{port}", string(host)).into());
    }
    if let Some(query) = said.get("query_id") {
        record.insert("query_id".to_owned(), string(query).into());
    }
    if let (Some(function), Some(file), Some(number)) =
        (said.get("func_name"), said.get("file_name"), said.get("file_line_num"))
    {
        let place = format!("{}, {}:{}", string(function), string(file), string(number));
        record.insert("location".to_owned(), place.into());
    }
    Some(record)
}

/// Takes whole records of csvlog from the front of `text`; returns them and how many bytes they
/// take. A field in quotes may hold line breaks.
#[must_use]
pub fn from_csv(text: &str) -> (Vec<Map<String, Value>>, usize) {
    let mut records = Vec::new();
    let (mut taken, mut quoted, mut was_quoted) = (0, false, false);
    let (mut field, mut fields) = (String::new(), Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '"' if quoted => quoted = false,
            '"' => {
                // A doubled quote inside a quoted field.
                if was_quoted && text[..at].ends_with('"') {
                    field.push('"');
                }
                quoted = true;
                was_quoted = true;
            }
            ',' if !quoted => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\n' if !quoted => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
                let columns = COLUMNS.iter().zip(fields.drain(..));
                records.push(
                    columns
                        .filter(|(_, value)| !value.is_empty())
                        .map(|(name, value)| ((*name).to_owned(), value.into()))
                        .collect(),
                );
                taken = at + 1;
            }
            other => field.push(other),
        }
    }
    (records, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_csv_give_the_same_record() {
        let json = from_json(
            r#"{"timestamp":"t","user":"u","pid":7,"remote_host":"::1","remote_port":5,
                "error_severity":"ERROR","message":"a \"b\"\nc","statement":"SELECT 1"}"#,
        )
        .unwrap();
        let csv =
            "t,\"u\",,7,\"::1:5\",,,,,,,ERROR,,\"a \"\"b\"\"\nc\",,,,,,\"SELECT 1\",,,,,,\nnext";
        let (records, taken) = from_csv(csv);
        assert_eq!(records, std::slice::from_ref(&json));
        assert_eq!(&csv[taken..], "next");
        assert_eq!(line(json)["level"], "error");
    }

    #[test]
    fn half_a_record_waits_for_the_rest() {
        assert_eq!(from_csv("t,\"u\nv"), (Vec::new(), 0));
        assert_eq!(from_json("{\"a\":"), None);
    }
}
