//! The operator's image: the one binary, on a root that has nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::archive::sha256;
use super::{Config, archive, once, remove};
use crate::suite;

/// Who runs it: no user of the image, so a number.
const USER: &str = "65532";

/// Makes `operator.tar` in `directory`.
pub fn make(directory: &Path) -> Result<()> {
    let binary = suite::shipped()?.join("matriarch");
    let inputs = format!("{}\n{}", sha256(&binary)?, include_str!("operator.rs"));
    let out = directory.join("operator.tar");
    once(&out, &inputs, || {
        let root = directory.join("operator.root");
        let made = fill(&root, &binary).and_then(|()| archive(&root, &name(), &out, &config()));
        remove(&root)?;
        made
    })
}

fn name() -> String {
    concat!("localhost/matriarch/operator:", env!("CARGO_PKG_VERSION")).to_owned()
}

fn config() -> Config {
    Config {
        user: Some(USER.to_owned()),
        entrypoint: vec!["/matriarch".to_owned()],
        ..Config::default()
    }
}

fn fill(root: &Path, binary: &Path) -> Result<()> {
    let temporary = root.join("tmp");
    fs::create_dir_all(&temporary)
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777)))
        .with_context(|| format!("cannot make {}", temporary.display()))?;
    let inside = root.join("matriarch");
    fs::copy(binary, &inside)
        .and_then(|_| fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot copy {}", binary.display()))
}
