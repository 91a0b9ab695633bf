//! `cargo xtask image`: images for the test cluster, made without Docker and without a registry
//! (docs/images.md).

mod archive;
mod debian;
mod operand;
mod operator;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::paths;
use crate::setup::postgresql::{Major, TESTED};
use crate::suite::Build;

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

/// Files of the archives of all images, the operator's first.
pub const ARCHIVES: [&str; 4] =
    ["operator.tar", "postgresql-15.tar", "postgresql-17.tar", "postgresql-18.tar"];

/// Which images, and how.
#[derive(Debug, Default, clap::Args)]
pub struct Arguments {
    /// Which images; all if none is named.
    names: Vec<Name>,
    /// The operator as the tests compile it, not as it ships: large and slow, but soon made.
    #[arg(long)]
    debug: bool,
    /// Another version of the operator from the same source, in an archive of its own.
    #[arg(long, value_name = "VERSION", value_parser = tag)]
    tag: Option<String>,
}

impl Arguments {
    /// All images, the operator as `build` says.
    pub fn all(build: Build) -> Self {
        Self { debug: build == Build::Tested, ..Self::default() }
    }
}

/// What a registry takes for a tag.
fn tag(text: &str) -> Result<String, String> {
    let inside = |it: char| it.is_ascii_alphanumeric() || "_.-".contains(it);
    let begins = text.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '_');
    if begins && text.len() <= 128 && text.chars().all(inside) {
        return Ok(text.to_owned());
    }
    Err("a tag is at most 128 letters, digits, `_`, `.` and `-`, the first no `.` or `-`"
        .to_owned())
}

/// Makes the images that were asked for, where what they are made of has changed.
///
/// # Errors
/// Says what could not be made; what was made before stays.
pub fn run(arguments: &Arguments) -> Result<()> {
    if !paths::is_root() {
        bail!("the files of images belong to several users: run `cargo xtask image` as root");
    }
    let names = if arguments.names.is_empty() { Name::value_variants() } else { &arguments.names };
    if (arguments.debug || arguments.tag.is_some()) && !names.contains(&Name::Operator) {
        bail!("--debug and --tag are of the operator's image: name `operator` as well");
    }
    let build = if arguments.debug { Build::Tested } else { Build::Shipped };
    let directory = directory()?;
    let _alone = lock(&directory)?;
    std::thread::scope(|scope| {
        let mut making = Vec::new();
        for name in names {
            let directory = &directory;
            making.push(scope.spawn(move || match name.major() {
                None => operator::make(build, arguments.tag.as_deref(), directory),
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

/// Makes the operator's image `next`, which is another build of the same: its archive.
///
/// # Errors
/// Says what could not be made.
pub fn next(build: Build) -> Result<PathBuf> {
    let directory = directory()?;
    let _alone = lock(&directory)?;
    operator::make_next(build, &directory)?;
    Ok(directory.join(operator::NEXT))
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

/// Waits until no other process makes images there; until the file is closed, none does.
fn lock(directory: &Path) -> Result<fs::File> {
    let path = directory.join("lock");
    fs::File::create(&path)
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// Makes a directory of an image: its mode is not the business of who runs this, so no umask.
fn make_directory(directory: &Path, mode: u32) -> Result<()> {
    fs::create_dir(directory)
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot make {}", directory.display()))
}

/// Writes a file of an image, likewise.
fn put(file: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    fs::write(file, bytes)
        .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot write {}", file.display()))
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
    use super::{Name, once, tag};
    use clap::ValueEnum as _;
    use std::fs;

    #[test]
    fn every_image_but_the_operators_has_a_major_that_tests_know() {
        let without: Vec<&Name> =
            Name::value_variants().iter().filter(|name| name.major().is_none()).collect();
        assert_eq!(without, [&Name::Operator]);
    }

    #[test]
    fn a_tag_is_what_a_registry_takes_and_no_path() {
        assert_eq!(tag("0.2.0-next_1").as_deref(), Ok("0.2.0-next_1"));
        for wrong in ["", "../a", "-a", ".a", "a b", "ä"] {
            assert!(tag(wrong).is_err(), "{wrong}");
        }
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
