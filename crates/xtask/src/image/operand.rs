//! Images with PostgreSQL, in the layouts that users have: CloudNativePG's, the official one, and
//! one whose nsswitch.conf leads C programs to modules of its own. Those of a major are layers over
//! the same files and lie in one archive, so a node keeps the files once.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::archive::{self, Config, Image, Layer};
use super::debian::{self, Packages};
use super::{make_directory, put};
use crate::setup::postgresql::Major;

/// What is in an image beside the server: what a person or a test uses in a pod, and nothing that
/// Matriarch itself needs but PostgreSQL's programs and the shell that initdb and pg_rewind use.
const PACKAGES: [&str; 11] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "libc-bin",
    "locales",
    "procps",
    "sed",
];

/// The package of a module that resolves names, for the image that names it in nsswitch.conf.
const NSS_MODULE: &str = "libnss-myhostname";

/// The languages of the locales that databases can be made in, beside C and C.UTF-8.
const LANGUAGES: [&str; 2] = ["de_DE", "en_US"];

/// The major that has the further layouts.
const LAYOUTS: u32 = 17;

/// Makes the archive `postgresql-<major>.tar` in `directory`.
pub fn make(major: Major, directory: &Path) -> Result<()> {
    let place = directory.join(format!("postgresql-{}.work", major.number));
    super::remove(&place)?;
    let out = directory.join(archive_name(major));
    let made = build(major, &place, &out);
    super::remove(&place)?;
    made.with_context(|| format!("cannot make the images of PostgreSQL {}", major.number))
}

/// The archive's name.
pub fn archive_name(major: Major) -> String {
    format!("postgresql-{}.tar", major.number)
}

fn build(major: Major, place: &Path, out: &Path) -> Result<()> {
    let number = major.number;
    let root = place.join("root");
    let server = [format!("postgresql-{number}"), format!("postgresql-{number}-pgaudit")];
    let names: Vec<&str> =
        PACKAGES.into_iter().chain([NSS_MODULE]).chain(server.iter().map(String::as_str)).collect();
    let packages = Packages::download(major.suite, &names, &place.join("apt"))?;
    packages.unpack(NSS_MODULE, &root)?;
    debian::make_locales(&root, &LANGUAGES)?;
    debian::require_libraries(&root, &[programs(major), libraries(major), "/usr/bin".into()])?;
    let layers = place.join("layers");
    let base = Layer::pack(&root, &layers)?;
    let ours = layer(&layers, &place.join("cloudnative"), |it| user(&root, it, 26, 101))?;
    let name = |rest: &str| format!("localhost/matriarch/{rest}");
    let mut images = vec![Image {
        names: vec![
            name(&format!("postgresql:{number}")),
            name(&format!("postgresql:{number}-next")),
        ],
        config: Config { user: Some("26".to_owned()), env: vec![path(major)], ..Config::default() },
        layers: vec![&base, &ours],
        stop_signal: None,
        volumes: Vec::new(),
    }];
    if number != LAYOUTS {
        return archive::write(&images, out);
    }
    let official = layer(&layers, &place.join("official"), |it| {
        user(&root, it, 999, 999)?;
        official_files(it)
    })?;
    images.push(official_image(major, &[&base, &official]));
    let modules = layer(&layers, &place.join("nss"), |it| {
        packages.unpack_one(NSS_MODULE, it)?;
        put(&it.join("etc/nsswitch.conf"), NSSWITCH.as_bytes(), 0o644)
    })?;
    images.push(Image {
        names: vec![name(&format!("postgresql-nss:{number}"))],
        // The programs are not in PATH here: they are found where Debian puts them.
        config: Config { user: Some("26".to_owned()), ..Config::default() },
        layers: vec![&base, &ours, &modules],
        stop_signal: None,
        volumes: Vec::new(),
    });
    archive::write(&images, out)
}

/// A layer of what `fill` puts into the directory `place`.
fn layer(layers: &Path, place: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Layer> {
    for name in ["", "etc", "run", "usr", "usr/local", "usr/local/bin", "var", "var/lib"] {
        make_directory(&place.join(name), 0o755)?;
    }
    fill(place)?;
    Layer::pack(place, layers)
}

fn programs(major: Major) -> PathBuf {
    format!("/usr/lib/postgresql/{}/bin", major.number).into()
}

fn libraries(major: Major) -> PathBuf {
    format!("/usr/lib/postgresql/{}/lib", major.number).into()
}

/// As both CloudNativePG's images and the official ones have it.
fn path(major: Major) -> (String, String) {
    ("PATH".to_owned(), format!("{}:{}", archive::PATH, programs(major).display()))
}

/// The user `postgres` with its directories, over what the packages below `root` know.
/// CloudNativePG changes the number of the user that Debian made, and leaves its group.
fn user(root: &Path, place: &Path, uid: u32, gid: u32) -> Result<()> {
    let line = format!("postgres:x:{uid}:{gid}::/var/lib/postgresql:/bin/bash\n");
    for (name, line) in [("passwd", line), ("group", format!("postgres:x:{gid}:\n"))] {
        let file = root.join("etc").join(name);
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        put(&place.join("etc").join(name), (without_user(&text) + &line).as_bytes(), 0o644)?;
    }
    for (name, mode) in [
        ("var/lib/postgresql", 0o755),
        ("var/lib/postgresql/data", 0o700),
        ("run/postgresql", 0o775),
    ] {
        let directory = place.join(name);
        make_directory(&directory, mode)?;
        chown(&directory, Some(uid), Some(gid))
            .with_context(|| format!("cannot give {} away", directory.display()))?;
    }
    Ok(())
}

/// The lines of a passwd or group file without that of `postgres`.
fn without_user(text: &str) -> String {
    let others = text.lines().filter(|line| !line.starts_with("postgres:"));
    others.flat_map(|line| [line, "\n"]).collect()
}

/// The official image's own files. Matriarch starts a program of its own and never this script: it
/// says so, should it be started.
fn official_files(place: &Path) -> Result<()> {
    make_directory(&place.join("docker-entrypoint-initdb.d"), 0o755)?;
    put(&place.join("usr/local/bin/docker-entrypoint.sh"), ENTRYPOINT.as_bytes(), 0o755)
}

const ENTRYPOINT: &str = "#!/bin/sh
# Stands for the official image's script of this name, which prepares and starts a server by itself.
echo \"docker-entrypoint.sh was started with: $*\" >&2
exec \"$@\"
";

/// Names modules that exist in the image and that a statically linked C library of another version
/// loads at its peril.
const NSSWITCH: &str = "passwd: compat hesiod
group: compat hesiod
shadow: files
hosts: myhostname files dns
networks: files
";

/// The official image: user and group 999 and no USER, so it starts as root where the pod names no
/// user; variables of its own; SIGINT as the signal that stops it, which nodes send to process 1.
fn official_image<'a>(major: Major, layers: &[&'a Layer]) -> Image<'a> {
    let data = "/var/lib/postgresql/data";
    let number = major.number;
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Image {
        names: vec![
            format!("localhost/matriarch/postgres-official:{number}"),
            // A name by which Matriarch knows the layout without being told the user's number.
            format!("localhost/library/postgres:{number}"),
        ],
        config: Config {
            user: None,
            entrypoint: vec!["docker-entrypoint.sh".to_owned()],
            env: vec![
                path(major),
                variable("LANG", "en_US.utf8"),
                variable("PG_MAJOR", &number.to_string()),
                variable("PGDATA", data),
            ],
            workdir: String::new(),
        },
        layers: layers.to_vec(),
        stop_signal: Some("SIGINT".to_owned()),
        volumes: vec![data.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::without_user;

    #[test]
    fn the_user_is_named_once() {
        let text = "root:x:0:0:root:/root:/bin/bash\npostgres:x:1:1::/:/bin/sh\nlist:x:38:\n";
        assert_eq!(without_user(text), "root:x:0:0:root:/root:/bin/bash\nlist:x:38:\n");
    }
}
