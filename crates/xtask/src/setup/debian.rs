//! Debian packages, of this release into the system and of another one into a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{command, paths};

/// Installs packages of the machine's own release; the caller knows that they are missing.
pub fn install(packages: &[&str]) -> Result<()> {
    let words = packages.join(" ");
    if !paths::is_root() {
        return super::need_root(&words, &format!("apt-get install {words}"));
    }
    println!("setup: installing {words}");
    let mut update = Command::new("apt-get");
    command::run_quietly(update.args(["update", "-q"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    command::run_quietly(&mut install)?;
    Ok(())
}

/// Puts the files of a package of the machine's own release into a directory, all or nothing,
/// without installing it.
pub fn unpack(package: &str, directory: &Path) -> Result<()> {
    println!("setup: unpacking {package}");
    let new = directory.with_extension("new");
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let mut download = Command::new("apt-get");
    download.current_dir(&new).args(["download", "-q", "-o", "APT::Sandbox::User="]).arg(package);
    if command::run_quietly(&mut download).is_err() {
        command::run_quietly(Command::new("apt-get").args(["update", "-q"]))?;
        command::run_quietly(&mut download)?;
    }
    for entry in fs::read_dir(&new).context("cannot list the downloaded packages")? {
        let archive = entry.context("cannot list the downloaded packages")?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            command::run_quietly(Command::new("dpkg").arg("-x").arg(&archive).arg(&new))?;
            fs::remove_file(&archive)
                .with_context(|| format!("cannot remove {}", archive.display()))?;
        }
    }
    fs::rename(&new, directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// A Debian release other than the machine's own, with an apt of its own that knows nothing of
/// what is installed: the machine's packages stay as they are.
pub struct OtherRelease {
    suite: String,
    directory: PathBuf,
}

impl OtherRelease {
    /// Prepares the lists of `suite` below `directory`.
    pub fn open(suite: &str, directory: &Path) -> Result<Self> {
        let release = Self { suite: suite.to_owned(), directory: directory.to_path_buf() };
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("cannot make {}/{part}", directory.display()))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let source = format!("deb [signed-by={keyring}] {} {suite} main\n", mirror()?);
        fs::write(directory.join("sources.list"), source)
            .with_context(|| format!("cannot write below {}", directory.display()))?;
        fs::write(directory.join("status"), "")
            .with_context(|| format!("cannot write below {}", directory.display()))?;
        command::run_quietly(release.apt().args(["update", "-q"]))?;
        Ok(release)
    }

    /// Downloads packages with all that they depend on; returns the files.
    pub fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let mut apt = self.apt();
        apt.args(["install", "-y", "-q", "--no-install-recommends", "--download-only"]);
        command::run_quietly(apt.args(packages))
            .with_context(|| format!("cannot download from Debian {}", self.suite))?;
        let archives = self.directory.join("cache/archives");
        let mut files = Vec::new();
        for entry in fs::read_dir(&archives).context("cannot list the downloaded packages")? {
            let path = entry.context("cannot list the downloaded packages")?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn apt(&self) -> Command {
        let at = |part: &str| self.directory.join(part).display().to_string();
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        for option in [
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            "Dir::Cache::pkgcache=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Debug::NoLocking=1".to_owned(),
            "APT::Sandbox::User=".to_owned(),
        ] {
            apt.arg("-o").arg(option);
        }
        apt
    }
}

/// The mirror that this machine's own apt uses.
fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if let Some(found) = text.lines().find_map(mirror_in_line) {
            return Ok(found);
        }
    }
    bail!("no Debian mirror found in /etc/apt: this set-up knows Debian only")
}

fn mirror_in_line(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let uri = match words.next()? {
        "URIs:" => words.next()?,
        "deb" => words.find(|word| word.contains("://"))?,
        _ => return None,
    };
    let uri = uri.trim_end_matches('/');
    uri.ends_with("/debian").then(|| uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::mirror_in_line;

    #[test]
    fn the_mirror_is_read_from_both_forms_of_sources() {
        let mirror = Some("http://mirror.example/debian".to_owned());
        assert_eq!(mirror_in_line("URIs: http://mirror.example/debian/"), mirror);
        let old = "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main";
        assert_eq!(mirror_in_line(old), mirror);
    }

    #[test]
    fn other_archives_are_no_mirror_of_debian() {
        assert_eq!(mirror_in_line("URIs: http://mirror.example/debian-security"), None);
        assert_eq!(mirror_in_line("deb https://packages.example/apt tool main"), None);
        assert_eq!(mirror_in_line("# a comment"), None);
    }
}
