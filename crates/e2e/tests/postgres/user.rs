//! Whose processes the servers are.

use anyhow::{Context, Result};

/// uid and gid of `postgres` where this is root, which PostgreSQL refuses to run as; nobody else's
/// otherwise. Read from the files: nothing calls getpw (traps P2).
pub fn of_servers() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let line = passwd.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.context("there is no user postgres")?.split(':').skip(2);
    let mut number = || -> Result<u32> { Ok(fields.next().context("short line")?.parse()?) };
    Ok(Some((number()?, number()?)))
}
