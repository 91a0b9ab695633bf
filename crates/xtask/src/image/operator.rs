//! The operator's image: the one binary, on a root that has nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use super::{Config, archive};
use crate::suite;

/// Who runs it: no user of the image, so a number.
const USER: &str = "65532";

/// Makes `operator.tar`.
pub fn make() -> Result<()> {
    let binary = suite::shipped()?.join("matriarch");
    let directory = super::directory()?;
    let root = directory.join("operator.root");
    fs::create_dir_all(root.join("tmp"))
        .with_context(|| format!("cannot make {}", root.display()))?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(&binary, root.join("matriarch"))
        .with_context(|| format!("cannot copy {}", binary.display()))?;
    let config = Config {
        user: Some(USER.to_owned()),
        entrypoint: vec!["/matriarch".to_owned()],
        ..Config::default()
    };
    let name = concat!("localhost/matriarch/operator:", env!("CARGO_PKG_VERSION"));
    archive(&root, name, &directory.join("operator.tar"), &config)?;
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))
}
