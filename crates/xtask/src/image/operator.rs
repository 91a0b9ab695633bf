//! The operator's image: the one program, on a root that has nothing else.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Config, archive, make_directory, once, put, remove};
use crate::suite::{self, Build};
use crate::{command, paths};

/// Who runs it: no user of the image, so a number.
const USER: &str = "65532";

/// The archive of another build of the operator, for tests of its upgrade.
pub const NEXT: &str = "operator-next.tar";

/// The version that the program has by itself.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes `operator.tar` in `directory`, or `operator-<tag>.tar` with a program that says that it is
/// the version `tag`.
pub fn make(build: Build, tag: Option<&str>, directory: &Path) -> Result<()> {
    let name = tag.map_or_else(|| "operator.tar".to_owned(), |tag| format!("operator-{tag}.tar"));
    let version = tag.unwrap_or(VERSION);
    archive_once(build, &directory.join(name), version, |root| {
        fill(root, &suite::program(build, tag)?)?;
        require_version(root, version)
    })
}

/// Makes `operator-next.tar` in `directory`: the same program with other bytes behind its end, so
/// that it has another digest. That is what tells operators and agents two versions apart, and takes
/// seconds where a compiler takes minutes.
pub fn make_next(build: Build, directory: &Path) -> Result<()> {
    archive_once(build, &directory.join(NEXT), "next", |root| {
        fill(root, &suite::program(build, None)?)?;
        lengthen(&root.join("matriarch"))?;
        require_version(root, VERSION)
    })
}

/// Makes the archive of the operator's image with this tag from what is put into its root.
fn archive_once(
    build: Build,
    out: &Path,
    tag: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    once(out, &inputs(build, &paths::workspace())?, || {
        let root = out.with_extension("root");
        remove(&root)?;
        let image = format!("localhost/matriarch/operator:{tag}");
        let made = fill(&root).and_then(|()| archive(&root, &image, out, &config()));
        remove(&root)?;
        made
    })
}

fn lengthen(program: &Path) -> Result<()> {
    fs::OpenOptions::new()
        .append(true)
        .open(program)
        .and_then(|mut file| file.write_all(b"another build"))
        .with_context(|| format!("cannot write {}", program.display()))
}

fn config() -> Config {
    Config {
        user: Some(USER.to_owned()),
        entrypoint: vec!["/matriarch".to_owned()],
        ..Config::default()
    }
}

fn fill(root: &Path, program: &Path) -> Result<()> {
    make_directory(root, 0o755)?;
    make_directory(&root.join("tmp"), 0o1777)?;
    let read = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    put(&root.join("matriarch"), &read, 0o755)
}

/// Runs the program where there is nothing beside it: only a static one starts there.
fn require_version(root: &Path, version: &str) -> Result<()> {
    let mut run = Command::new("chroot");
    run.arg("--userspec").arg(format!("{USER}:{USER}")).arg(root).args(["/matriarch", "--version"]);
    let said = command::run_quietly(&mut run)
        .context("the program does not run by itself: is it linked statically?")?;
    if said.trim() == format!("matriarch {version}") {
        return Ok(());
    }
    bail!("the program says `{}` of itself, not `matriarch {version}`", said.trim())
}

/// Crates that the program is not made of.
const OTHER_CRATES: [&str; 3] = ["e2e", "sim", "xtask"];

/// Digests of all that the program is made of, so that cargo is not asked where nothing changed: it
/// would compile anew whenever the other version was made last.
fn inputs(build: Build, root: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> =
        ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "crates/xtask/src/suite.rs"]
            .iter()
            .map(|name| root.join(name))
            .collect();
    for entry in list(&root.join("crates"))? {
        let other = entry.file_name().is_some_and(|name| OTHER_CRATES.iter().any(|it| name == *it));
        if !other {
            collect(&entry, &mut files)?;
        }
    }
    files.sort();
    let mut text =
        format!("{build:?}\n{}{}", include_str!("operator.rs"), include_str!("archive.rs"));
    text += &command::run_quietly(Command::new("sha256sum").args(&files))?;
    Ok(text)
}

fn collect(place: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !place.is_dir() {
        files.push(place.to_path_buf());
        return Ok(());
    }
    for entry in list(place)? {
        collect(&entry, files)?;
    }
    Ok(())
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect();
    let listed: std::io::Result<Vec<PathBuf>> = read();
    listed.with_context(|| format!("cannot list {}", directory.display()))
}
