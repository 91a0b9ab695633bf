//! PostgreSQL's programs: what the machine has is used; a major that its release does not offer
//! comes from another Debian release, unpacked into a directory and made to use the C library that
//! came with it (patchelf), so that the machine itself stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::debian::OtherRelease;
use crate::{command, paths};

/// The majors that the tests run, with the Debian release that has each.
pub const TESTED: [Major; 3] = [
    Major { number: 15, suite: "bookworm" },
    Major { number: 17, suite: "trixie" },
    Major { number: 18, suite: "forky" },
];

/// A major version and the Debian release that has it.
#[derive(Clone, Copy)]
pub struct Major {
    /// Its number.
    pub number: u32,
    /// The release.
    pub suite: &'static str,
}

/// The major that a first user gets: one that is installed already, else 17.
pub fn any_native() -> Major {
    TESTED.into_iter().rev().find(Major::is_installed).unwrap_or(TESTED[1])
}

/// Makes the given majors available.
pub fn install(majors: &[Major]) -> Result<()> {
    for major in majors.iter().filter(|major| !major.is_installed()) {
        println!("setup: PostgreSQL {} from Debian {}", major.number, major.suite);
        unpack(*major).with_context(|| format!("cannot install PostgreSQL {}", major.number))?;
    }
    for major in majors {
        without_jit(*major)?;
    }
    Ok(())
}

/// LLVM is left out, and a JIT provider that is there but cannot be loaded fails every query for
/// which PostgreSQL wants it.
fn without_jit(major: Major) -> Result<()> {
    let library = paths::postgresql_cache().join(format!("{}/lib/llvmjit.so", major.number));
    match fs::remove_file(&library) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", library.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Major {
    fn is_installed(&self) -> bool {
        let below = format!("{}/bin/postgres", self.number);
        [PathBuf::from("/usr/lib/postgresql"), paths::postgresql_cache()]
            .iter()
            .any(|directory| super::runs(&directory.join(&below)))
    }
}

/// Packages that PostgreSQL's programs do not need to run.
const LEFT_OUT: [&str; 8] =
    ["perl", "libllvm", "libz3", "locales", "passwd", "adduser", "login", "debconf"];

fn unpack(major: Major) -> Result<()> {
    if !command::found("patchelf") {
        super::debian::install(&["patchelf"])?;
    }
    let cache = paths::postgresql_cache();
    let root = cache.join(format!("debian-{}", major.suite));
    let work = cache.join(format!("work-{}", major.number));
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let release = OtherRelease::open(major.suite, &work)?;
    for package in release.download(&[&format!("postgresql-{}", major.number)])? {
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !LEFT_OUT.iter().any(|prefix| name.starts_with(prefix)) {
            command::run_quietly(Command::new("dpkg").arg("-x").arg(&package).arg(&root))?;
        }
    }
    relocate(&root, major.number)?;
    fs::remove_dir_all(&work).context("cannot remove the downloaded packages")?;
    let link = cache.join(major.number.to_string());
    let target = root.join(format!("usr/lib/postgresql/{}", major.number));
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&target, &link)
        .with_context(|| format!("cannot link {}", link.display()))
}

/// Makes every program load the C library and the others that were unpacked with it.
fn relocate(root: &Path, major: u32) -> Result<()> {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let loader = libraries.join("ld-linux-x86-64.so.2");
    let programs = root.join(format!("usr/lib/postgresql/{major}/bin"));
    for entry in fs::read_dir(&programs).context("cannot list the unpacked programs")? {
        let program = entry.context("cannot list the unpacked programs")?.path();
        let mut patchelf = Command::new("patchelf");
        patchelf.arg("--set-interpreter").arg(&loader);
        patchelf.arg("--force-rpath").arg("--set-rpath").arg(&libraries).arg(&program);
        command::run_quietly(&mut patchelf)?;
    }
    Ok(())
}
