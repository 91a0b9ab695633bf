//! One test with a cluster or an API server at a time, over all test binaries: two of them on two
//! cores take each other's time, and what is measured is the other one.

use std::fs::File;

/// Held by the test whose turn it is; over when it is dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

/// Waits until it is this test's turn.
///
/// # Errors
/// If the lock file cannot be made.
pub fn wait() -> std::io::Result<Turn> {
    let file = File::create(std::env::temp_dir().join("matriarch-e2e.lock"))?;
    file.lock()?;
    Ok(Turn(file))
}
