//! `cargo xtask image`: images for the test cluster, made without Docker and without a registry.

mod archive;
mod operator;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::paths;

pub use archive::{Config, archive};

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// The operator, which is also what the init container of every database pod copies.
    Operator,
}

/// Makes the named images, or all.
pub fn run(names: &[Name]) -> Result<()> {
    let names = if names.is_empty() { Name::value_variants() } else { names };
    for name in names {
        match name {
            Name::Operator => operator::make()?,
        }
    }
    Ok(())
}

/// The directory of the archives, made if it is not there.
fn directory() -> Result<PathBuf> {
    let directory = paths::kube().join("images");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}
