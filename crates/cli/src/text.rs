//! Tables, times and sentences for people.

use std::io::Write;

use comfy_table::{Table, presets};
use jiff::Timestamp;

use crate::Error;

/// A table without lines; a heading where one is given.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !heading.is_empty() {
        table.set_header(heading.to_vec());
    }
    for row in rows {
        table.add_row(row.clone());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// A section: its title, a line below it, its body.
pub fn section(title: &str, body: &str) -> String {
    format!("{title}\n{}\n{}\n", "-".repeat(title.chars().count()), body.trim_end())
}

/// A size, in the unit that leaves one to four digits before the point.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut whole, mut unit) = (u128::from(size) * 10 / 1024, 0);
    while whole >= 102_400 && unit + 1 < UNITS.len() {
        (whole, unit) = (whole / 1024, unit + 1);
    }
    format!("{}.{} {}", whole / 10, whole % 10, UNITS[unit])
}

/// A point in time.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A point in time as RFC 3339, for people, with its age; as it is if it cannot be read.
pub fn time_and_age(at: &str, now: Timestamp) -> String {
    match at.parse::<Timestamp>() {
        Ok(parsed) => format!("{} ({})", time(parsed), age(now.as_second() - parsed.as_second())),
        Err(_) => at.to_owned(),
    }
}

/// A length of time as kubectl writes it: two units at most.
pub fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, 1..=9) => format!("{minutes}m{}s", seconds % 60),
        (0, 0, _) => format!("{minutes}m"),
        (0, 1..=9, _) => format!("{hours}h{}m", minutes % 60),
        (0, _, _) => format!("{hours}h"),
        (1..=9, _, _) => format!("{days}d{}h", hours % 24),
        (_, _, _) => format!("{days}d"),
    }
}

/// Writes to standard output. Whoever has stopped reading wants no more: that is no error.
///
/// # Errors
/// If it cannot be written for another reason.
pub fn print(text: &str) -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a line to standard output.
///
/// # Errors
/// If it cannot be written.
pub fn say(line: &str) -> Result<(), Error> {
    print(&format!("{line}\n"))
}
