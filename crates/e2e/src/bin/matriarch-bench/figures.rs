//! Minimum, median, maximum.

use std::time::Duration;

/// Of many runs.
pub struct Spread {
    sorted: Vec<Duration>,
}

impl Spread {
    /// Of these.
    pub fn of(figures: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = figures.into_iter().collect();
        sorted.sort();
        Self { sorted }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The least one.
    pub fn minimum(&self) -> Duration {
        self.sorted.first().copied().unwrap_or_default()
    }

    /// The one in the middle, the greater of two.
    pub fn median(&self) -> Duration {
        self.sorted.get(self.sorted.len() / 2).copied().unwrap_or_default()
    }

    /// The greatest one.
    pub fn maximum(&self) -> Duration {
        self.sorted.last().copied().unwrap_or_default()
    }
}

/// Seconds with two digits.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64())
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// What a process occupies: all of it, and what it does not share with a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// `VmRSS` in MiB.
    pub resident: f64,
    /// `RssAnon` in MiB.
    pub anonymous: f64,
}

/// Of one process.
///
/// # Errors
/// If it has gone.
pub fn memory(pid: i32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok()
    };
    let mebibytes = |name: &str| field(name).unwrap_or_default() / 1024.0;
    Ok(Memory { resident: mebibytes("VmRSS"), anonymous: mebibytes("RssAnon") })
}
