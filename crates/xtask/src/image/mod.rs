//! `cargo xtask image`: images for the test cluster, made without Docker and without a registry
//! (docs/images.md).

mod archive;
mod debian;
mod operand;
mod operator;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::paths;
use crate::setup::postgresql::{Major, TESTED};

pub use archive::{Config, archive};

/// What can be made: each is an archive of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// The operator, which is also what the init container of every database pod copies.
    Operator,
    /// PostgreSQL 15 of Debian bookworm.
    #[value(name = "postgresql-15")]
    Postgresql15,
    /// PostgreSQL 17 of Debian trixie, in all layouts.
    #[value(name = "postgresql-17")]
    Postgresql17,
    /// PostgreSQL 18 of Debian forky.
    #[value(name = "postgresql-18")]
    Postgresql18,
}

/// Makes the named images, or all, where what they are made of has changed.
///
/// # Errors
/// Says what could not be made; what was made before stays.
pub fn run(names: &[Name]) -> Result<()> {
    if !paths::is_root() {
        bail!("the files of images belong to several users: run `cargo xtask image` as root");
    }
    let names = if names.is_empty() { Name::value_variants() } else { names };
    let directory = directory()?;
    std::thread::scope(|scope| {
        let mut making = Vec::new();
        for name in names {
            let directory = &directory;
            making.push(scope.spawn(move || match name.major() {
                None => operator::make(directory),
                Some(major) => make_operand(major, directory),
            }));
        }
        let mut failures = Vec::new();
        for one in making {
            match one.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(format!("{error:#}")),
                Err(_) => failures.push("the making of an image ended in a panic".to_owned()),
            }
        }
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\nerror: ")) }
    })
}

impl Name {
    /// The major of an operand image.
    fn major(self) -> Option<Major> {
        let number = match self {
            Self::Operator => return None,
            Self::Postgresql15 => 15,
            Self::Postgresql17 => 17,
            Self::Postgresql18 => 18,
        };
        TESTED.into_iter().find(|major| major.number == number)
    }
}

/// What makes operand images: with any of it changed they are made anew.
const OPERAND_SOURCES: &str = concat!(
    include_str!("archive.rs"),
    include_str!("debian.rs"),
    include_str!("operand.rs"),
    include_str!("../setup/postgresql.rs")
);

fn make_operand(major: Major, directory: &Path) -> Result<()> {
    let out = directory.join(operand::archive_name(major));
    once(&out, OPERAND_SOURCES, || operand::make(major, directory))
}

/// Makes the archive `out` unless it is there and was made from the same `inputs`.
fn once(out: &Path, inputs: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let noted = out.with_extension("inputs");
    if out.is_file() && fs::read_to_string(&noted).is_ok_and(|text| text == inputs) {
        return Ok(());
    }
    let start = Instant::now();
    make()?;
    fs::write(&noted, inputs).with_context(|| format!("cannot write {}", noted.display()))?;
    let size = fs::metadata(out).with_context(|| format!("no {} was made", out.display()))?.len();
    let (megabytes, seconds) = (size / 1_000_000, start.elapsed().as_secs());
    println!("image: {}, {megabytes} MB, {seconds} s", out.display());
    Ok(())
}

/// The directory of the archives, made if it is not there.
fn directory() -> Result<PathBuf> {
    let directory = paths::kube().join("images");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Removes a directory that may be there.
fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, once};
    use clap::ValueEnum as _;
    use std::fs;

    #[test]
    fn every_image_but_the_operators_has_a_major_that_tests_know() {
        let without: Vec<&Name> =
            Name::value_variants().iter().filter(|name| name.major().is_none()).collect();
        assert_eq!(without, [&Name::Operator]);
    }

    #[test]
    fn an_archive_is_made_anew_only_when_it_or_its_inputs_changed() {
        let place = std::env::temp_dir().join(format!("m-once-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let out = place.join("image.tar");
        let made = |inputs: &str| {
            let mut called = false;
            once(&out, inputs, || {
                called = true;
                fs::write(&out, inputs)?;
                Ok(())
            })
            .unwrap();
            called
        };
        assert!(made("one"));
        assert!(!made("one"));
        assert!(made("two"));
        fs::remove_file(&out).unwrap();
        assert!(made("two"));
        assert!(once(&out, "three", || anyhow::bail!("no")).is_err());
        assert!(!made("two"), "a failure must not touch what was made before");
        fs::remove_dir_all(place).unwrap();
    }
}
