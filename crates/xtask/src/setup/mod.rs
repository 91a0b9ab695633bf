//! `cargo xtask setup`: installs what build, tests and demo need. Silent when all is there.

pub mod debian;
mod kubernetes;
pub mod postgresql;

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;
use crate::paths;

/// What the set-up is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// `cargo xtask local`: one PostgreSQL.
    Demo,
    /// Every test: all majors, and the programs of Kubernetes.
    Tests,
}

/// Installs what is missing.
///
/// # Errors
/// Says which program is missing and what to do where it may not install it by itself.
pub fn run(purpose: For) -> Result<()> {
    require_compiler()?;
    match purpose {
        For::Demo => postgresql::install(&[postgresql::any_native()])?,
        For::Tests => {
            postgresql::install(&postgresql::TESTED)?;
            kubernetes::install()?;
        }
    }
    Ok(())
}

/// The environment that tests and demo need to find what was installed.
pub fn environment() -> Vec<(&'static str, std::ffi::OsString)> {
    vec![
        ("MATRIARCH_TOOLS", paths::kubernetes_tools().join("bin").into_os_string()),
        ("MATRIARCH_POSTGRESQL", paths::postgresql_cache().into_os_string()),
    ]
}

fn require_compiler() -> Result<()> {
    if command::found("cc") {
        return Ok(());
    }
    debian::install(&["build-essential"])
}

/// Runs `git --version` and the like only to know whether a program can be run at all.
fn runs(program: &std::path::Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn need_root(what: &str, command: &str) -> Result<()> {
    bail!("{what} is missing, and only root can install it. Run as root: {command}")
}
