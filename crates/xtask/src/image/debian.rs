//! A root file system from Debian packages: unpacked and never configured, because an image only has
//! to run programs. So there is no apt in a chroot, and nothing is mounted.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::make_directory;
use crate::command;
use crate::setup::debian::OtherRelease;

/// What nobody reads in an image, and LLVM's part of PostgreSQL: a JIT provider that is there but
/// cannot be loaded fails every query for which PostgreSQL wants it.
const LEFT_OUT_FILES: [&str; 12] = [
    "./usr/share/doc",
    "./usr/share/doc-base",
    "./usr/share/man",
    "./usr/share/info",
    "./usr/share/locale",
    "./usr/share/lintian",
    "./usr/share/bug",
    "./usr/share/common-licenses",
    "./usr/share/postgresql/*/man",
    "./usr/lib/postgresql/*/lib/bitcode",
    "./usr/lib/postgresql/*/lib/llvmjit*",
    "./usr/lib/*/gconv",
];

/// Packages that others ask for and no program of the image needs: what sets packages up, and Perl
/// in which it is written.
const LEFT_OUT: [&str; 18] = [
    "adduser",
    "debconf",
    "debianutils",
    "init-system-helpers",
    "libllvm",
    "libperl",
    "libz3",
    "login",
    "mawk",
    "netbase",
    "openssl",
    "passwd",
    "perl",
    "postgresql-client-common",
    "postgresql-common",
    "sensible-utils",
    "ssl-cert",
    "ucf",
];

/// Directories that are links in every Debian since 12; the packages of 12 do not bring the links.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Downloaded packages of one release.
pub struct Packages {
    files: Vec<PathBuf>,
}

impl Packages {
    /// Downloads packages of the release `suite` with all that they need into the directory `work`.
    ///
    /// # Errors
    /// They are not to be had.
    pub fn download(suite: &str, names: &[&str], work: &Path) -> Result<Self> {
        Ok(Self { files: OtherRelease::open(suite, work)?.download(names)? })
    }

    /// Unpacks what programs need of all packages but `except` into the new directory `root`, and
    /// does what the packages' own scripts would have done of what matters here.
    ///
    /// # Errors
    /// A program that does it failed, or the packages are not those of a Debian that is known.
    pub fn unpack(&self, except: &str, root: &Path) -> Result<()> {
        for name in ["", "usr"] {
            make_directory(&root.join(name), 0o755)?;
        }
        for name in MERGED {
            make_directory(&root.join("usr").join(name), 0o755)?;
            symlink(Path::new("usr").join(name), root.join(name))
                .with_context(|| format!("cannot link {name} below {}", root.display()))?;
        }
        let wanted = |file: &&PathBuf| is_wanted(file) && package_of(file) != except;
        for file in self.files.iter().filter(wanted) {
            unpack_file(file, root)?;
        }
        configure(root)
    }

    /// Unpacks the one package `name` over `root`.
    ///
    /// # Errors
    /// As [`Packages::unpack`], or it was not downloaded.
    pub fn unpack_one(&self, name: &str, root: &Path) -> Result<()> {
        let file = self.files.iter().find(|file| package_of(file) == name);
        unpack_file(file.with_context(|| format!("apt did not download {name}"))?, root)
    }
}

fn is_wanted(file: &Path) -> bool {
    let package = package_of(file);
    let of_perl = package.starts_with("lib") && package.ends_with("-perl");
    !of_perl && !LEFT_OUT.iter().any(|name| package.starts_with(name))
}

/// The package's name, which the file's name begins with.
fn package_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split('_').next().unwrap_or_default().to_owned()
}

/// `dpkg -x` would put directories where the links of [`MERGED`] are.
fn unpack_file(file: &Path, root: &Path) -> Result<()> {
    let shown = file.display();
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(file).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut unpack = unpack.spawn().context("cannot start dpkg-deb")?;
    let files = unpack.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--preserve-permissions",
        "--numeric-owner",
        "--keep-directory-symlink",
    ]);
    tar.args(LEFT_OUT_FILES.map(|name| format!("--exclude={name}")));
    let tar = tar.arg("--directory").arg(root).stdin(files).output();
    let unpacked = unpack.wait().context("cannot wait for dpkg-deb")?;
    let tar = tar.context("cannot start tar")?;
    if !tar.status.success() {
        bail!("cannot unpack {shown}: {}", String::from_utf8_lossy(&tar.stderr).trim());
    }
    if !unpacked.success() {
        bail!("cannot read {shown}: dpkg-deb failed ({unpacked})");
    }
    Ok(())
}

fn configure(root: &Path) -> Result<()> {
    for name in ["passwd", "group"] {
        copy(root, &format!("usr/share/base-passwd/{name}.master"), &format!("etc/{name}"))?;
    }
    let nsswitch = ["usr/share/libc-bin/nsswitch.conf", "usr/share/base-files/nsswitch.conf"];
    let nsswitch = nsswitch.into_iter().find(|file| root.join(file).is_file());
    copy(root, nsswitch.context("no package brings nsswitch.conf")?, "etc/nsswitch.conf")?;
    if !root.join("bin/sh").exists() {
        symlink("dash", root.join("bin/sh")).context("cannot link bin/sh")?;
    }
    // PostgreSQL reads every file of the time zones, and one is a link to this.
    symlink("/usr/share/zoneinfo/Etc/UTC", root.join("etc/localtime"))
        .context("cannot link etc/localtime")?;
    let mut cache = Command::new("chroot");
    command::run_quietly(cache.arg(root).arg("/sbin/ldconfig"))?;
    // What it remembers of the files' times and numbers would make every image another one.
    super::remove(&root.join("var/cache/ldconfig"))
}

fn copy(root: &Path, from: &str, to: &str) -> Result<()> {
    let (from, to) = (root.join(from), root.join(to));
    fs::copy(&from, &to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Makes locales of the given languages, all in UTF-8, and removes what they are made from.
pub fn make_locales(root: &Path, languages: &[&str]) -> Result<()> {
    let charmap = root.join("usr/share/i18n/charmaps/UTF-8.gz");
    command::run_quietly(Command::new("gzip").args(["--decompress", "--force"]).arg(&charmap))?;
    let places = root.join("usr/lib/locale");
    if !places.is_dir() {
        make_directory(&places, 0o755)?;
    }
    for language in languages {
        let mut make = Command::new("chroot");
        make.arg(root).args(["/usr/bin/localedef", "-i", language, "-f", "UTF-8"]);
        command::run_quietly(make.arg(format!("{language}.UTF-8")))?;
    }
    let made = places.join("locale-archive");
    fs::set_permissions(&made, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("localedef made no {}", made.display()))?;
    let sources = root.join("usr/share/i18n");
    fs::remove_dir_all(&sources).with_context(|| format!("cannot remove {}", sources.display()))
}

/// Fails if a program or library below one of `directories` of the root misses a library there.
pub fn require_libraries(root: &Path, directories: &[PathBuf]) -> Result<()> {
    let mut missing = Vec::new();
    for directory in directories {
        let inside = root.join(directory.strip_prefix("/").unwrap_or(directory));
        let list = fs::read_dir(&inside);
        for entry in list.with_context(|| format!("cannot list {}", inside.display()))? {
            let path = entry.with_context(|| format!("cannot list {}", inside.display()))?.path();
            if !path.is_file() || !is_elf(&path)? {
                continue;
            }
            let name = directory.join(path.file_name().unwrap_or_default());
            let mut loader = Command::new("chroot");
            let loader = loader.arg(root).args(["/usr/bin/ld.so", "--list"]).arg(&name).output();
            let said = loader.context("cannot start chroot")?;
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            missing
                .extend(not_found(&text).map(|library| format!("{}: {library}", name.display())));
            if !said.status.success() {
                let error = String::from_utf8_lossy(&said.stderr).trim().to_owned();
                missing.push(format!("{}: {error}", name.display()));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("libraries are missing in the image:\n  {}", missing.join("\n  "))
}

fn is_elf(file: &Path) -> Result<bool> {
    use std::io::Read as _;
    let mut first = [0_u8; 4];
    let mut file =
        fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    Ok(file.read_exact(&mut first).is_ok() && first == *b"\x7fELF")
}

/// The libraries that the loader's list names as not found.
fn not_found(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.trim().strip_suffix("=> not found")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::{is_wanted, not_found};
    use std::path::Path;

    #[test]
    fn perl_and_what_sets_packages_up_are_left_out_and_libraries_stay() {
        let wanted = |name: &str| is_wanted(Path::new(name));
        assert!(wanted("/x/postgresql-17_17.6-1_amd64.deb"));
        assert!(wanted("/x/postgresql-17-pgaudit_17.1-1_amd64.deb"));
        assert!(wanted("/x/libssl3t64_3.5_amd64.deb"));
        assert!(wanted("/x/libpam0g_1.7_amd64.deb"));
        for name in ["perl-base", "libjson-perl", "postgresql-common-dev", "libllvm19"] {
            assert!(!wanted(&format!("/x/{name}_1_amd64.deb")), "{name}");
        }
    }

    #[test]
    fn the_loaders_list_names_what_is_missing() {
        let list = "\tlibc.so.6 => /lib/libc.so.6 (0x1)\n\tlibxslt.so.1 => not found\n";
        assert_eq!(not_found(list).collect::<Vec<_>>(), ["libxslt.so.1"]);
    }
}
