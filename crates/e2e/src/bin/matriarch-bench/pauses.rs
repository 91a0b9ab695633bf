//! When the machine itself stood still: a virtual machine whose host gives it no processor freezes
//! every program alike, and what is measured then is the host.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

/// How often the clock is looked at.
const PERIOD: Duration = Duration::from_millis(5);
/// Anything longer between two looks is a pause; below it is the scheduler's own business.
const PAUSE: Duration = Duration::from_millis(50);

/// A thread that does nothing but look at the clock.
#[derive(Clone, Default)]
pub struct Pauses {
    found: Arc<Mutex<Vec<(SystemTime, SystemTime)>>>,
}

impl Pauses {
    /// Begins to watch, until the program ends.
    pub fn watch() -> Self {
        let pauses = Self::default();
        let watched = pauses.clone();
        thread::spawn(move || {
            // Before all others, if it may: it looks for pauses of the machine, not for its turn.
            let _refused = rustix::process::setpriority_process(None, -20);
            let mut before = SystemTime::now();
            loop {
                thread::sleep(PERIOD);
                let now = SystemTime::now();
                if now.duration_since(before).is_ok_and(|gap| gap > PAUSE) {
                    let mut found = watched.found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.push((before, now));
                }
                before = now;
            }
        });
        pauses
    }

    /// For how long it stood still between the two.
    pub fn within(&self, began: SystemTime, ended: SystemTime) -> Duration {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found
            .iter()
            .filter_map(|&(from, to)| to.min(ended).duration_since(from.max(began)).ok())
            .sum()
    }
}
