//! Image archives that `ctr images import` takes (the form of `docker save`): one tar with a
//! configuration for each image, the layers, and `manifest.json`, which says what belongs together.
//! Images in one archive share the layers that they have in common.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command;

/// How containers of an image are started where their pod says nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// User id or name, with `:group` if wanted; root if none.
    pub user: Option<String>,
    /// Program and its first arguments; none if empty.
    pub entrypoint: Vec<String>,
    /// Variables; `PATH` has Debian's value unless it is among them.
    pub env: Vec<(String, String)>,
    /// The working directory; `/` if empty.
    pub workdir: String,
}

/// One image of an archive.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// All its names, each `registry/repository:tag`.
    pub names: Vec<String>,
    /// What it starts.
    pub config: Config,
    /// Its file system, lowest layer first.
    pub layers: Vec<&'a Layer>,
    /// The signal that asks its process 1 to stop; SIGTERM if none.
    pub stop_signal: Option<String>,
    /// Directories for which a node makes a volume where the pod mounts none.
    pub volumes: Vec<String>,
}

/// A tar of files, known by the SHA-256 of its bytes.
#[derive(Clone, Debug)]
pub struct Layer {
    file: PathBuf,
    digest: String,
}

/// What Debian gives root, and what every image has that says nothing.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes the files below `root` as an image `name` of one layer to the archive `out`.
///
/// Owners are kept as numbers. The same files give the same archive, whenever it is made.
///
/// # Errors
/// `root` cannot be read, `out` cannot be written, or tar or sha256sum is missing.
pub fn archive(root: &Path, name: &str, out: &Path, config: &Config) -> Result<()> {
    let layers = out.with_extension("layers");
    let written = Layer::pack(root, &layers).and_then(|layer| {
        let image = Image {
            names: vec![name.to_owned()],
            config: config.clone(),
            layers: vec![&layer],
            stop_signal: None,
            volumes: Vec::new(),
        };
        write(&[image], out)
    });
    super::remove(&layers)?;
    written
}

impl Layer {
    /// Packs all files below `root` into a layer that is kept in the directory `layers`.
    pub fn pack(root: &Path, layers: &Path) -> Result<Self> {
        make(layers)?;
        let packed = layers.join("layer.new");
        let mut tar = Command::new("tar");
        // No times and one order: the digest is that of the files alone.
        tar.args(["--create", "--format=gnu", "--numeric-owner", "--sort=name", "--mtime=@0"]);
        tar.arg("--file").arg(&packed).arg("--directory").arg(root).arg(".");
        command::run_quietly(&mut tar)?;
        let digest = sha256(&packed)?;
        let file = layers.join(file_of_layer(&digest));
        fs::rename(&packed, &file).with_context(|| format!("cannot make {}", file.display()))?;
        Ok(Self { file, digest })
    }
}

/// Writes images into the one archive `out`.
pub fn write(images: &[Image<'_>], out: &Path) -> Result<()> {
    let parts = out.with_extension("parts");
    super::remove(&parts)?;
    let written = gather(images, &parts).and_then(|()| {
        let new = out.with_extension("new");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--format=gnu", "--owner=0", "--group=0", "--mode=u=rwX,go=rX"]);
        tar.args(["--sort=name", "--mtime=@0", "--transform=s,^\\./,,"]);
        tar.arg("--file").arg(&new).arg("--directory").arg(&parts).arg(".");
        command::run_quietly(&mut tar)?;
        fs::rename(&new, out).with_context(|| format!("cannot make {}", out.display()))
    });
    super::remove(&parts)?;
    written
}

/// Puts what goes into an archive into the directory `parts`.
fn gather(images: &[Image<'_>], parts: &Path) -> Result<()> {
    make(parts)?;
    let mut manifest = Vec::new();
    for image in images {
        let digests: Vec<&str> = image.layers.iter().map(|layer| layer.digest.as_str()).collect();
        for layer in &image.layers {
            let inside = parts.join(file_of_layer(&layer.digest));
            if !inside.exists() {
                fs::hard_link(&layer.file, &inside)
                    .with_context(|| format!("cannot link {}", layer.file.display()))?;
            }
        }
        let configuration = parts.join("configuration");
        put(&configuration, &configuration_json(image, &digests))?;
        let named = format!("{}.json", sha256(&configuration)?);
        fs::rename(&configuration, parts.join(&named))
            .with_context(|| format!("cannot write below {}", parts.display()))?;
        manifest.push(manifest_entry(&named, &image.names, &digests));
    }
    put(&parts.join("manifest.json"), &Value::Array(manifest))
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

fn put(file: &Path, value: &Value) -> Result<()> {
    fs::write(file, value.to_string()).with_context(|| format!("cannot write {}", file.display()))
}

/// The SHA-256 of a file, in hexadecimal digits.
pub fn sha256(file: &Path) -> Result<String> {
    let said = command::run_quietly(Command::new("sha256sum").arg("--binary").arg(file))?;
    // A name with a backslash or a line's end in it makes sha256sum put a backslash in front.
    let digest = said.split_whitespace().next().context("sha256sum printed nothing")?;
    Ok(digest.trim_start_matches('\\').to_owned())
}

fn file_of_layer(digest: &str) -> String {
    format!("{digest}.tar")
}

fn configuration_json(image: &Image<'_>, digests: &[&str]) -> Value {
    let config = &image.config;
    let mut env: Vec<String> =
        config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !config.env.iter().any(|(name, _)| name == "PATH") {
        env.insert(0, format!("PATH={PATH}"));
    }
    let workdir = if config.workdir.is_empty() { "/" } else { &config.workdir };
    let mut start = json!({ "Env": env, "WorkingDir": workdir });
    if let Some(user) = &config.user {
        start["User"] = json!(user);
    }
    if !config.entrypoint.is_empty() {
        start["Entrypoint"] = json!(config.entrypoint);
    }
    if let Some(signal) = &image.stop_signal {
        start["StopSignal"] = json!(signal);
    }
    for volume in &image.volumes {
        start["Volumes"][volume] = json!({});
    }
    let layers: Vec<String> = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": start,
        "rootfs": { "type": "layers", "diff_ids": layers },
        "history": digests.iter().map(|_| json!({"created_by": "cargo xtask image"})).collect::<Vec<_>>(),
    })
}

/// Images name architectures as Go does.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn manifest_entry(configuration: &str, names: &[String], digests: &[&str]) -> Value {
    let layers: Vec<String> = digests.iter().map(|digest| file_of_layer(digest)).collect();
    json!({ "Config": configuration, "RepoTags": names, "Layers": layers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: Config) -> Image<'static> {
        Image {
            names: Vec::new(),
            config,
            layers: Vec::new(),
            stop_signal: None,
            volumes: Vec::new(),
        }
    }

    #[test]
    fn a_configuration_names_only_what_was_asked_for() {
        let said = configuration_json(&image(Config::default()), &["aa", "bb"]);
        let path = format!("PATH={PATH}");
        assert_eq!(said["config"], json!({"Env": [path], "WorkingDir": "/"}));
        assert_eq!(said["rootfs"]["diff_ids"], json!(["sha256:aa", "sha256:bb"]));
        assert_eq!(said["history"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn what_is_asked_for_is_in_the_configuration() {
        let config = Config {
            user: Some("26".to_owned()),
            entrypoint: vec!["/a".to_owned(), "b".to_owned()],
            env: vec![("PATH".to_owned(), "/x".to_owned()), ("A".to_owned(), "1".to_owned())],
            workdir: "/w".to_owned(),
        };
        let image = Image {
            stop_signal: Some("SIGINT".to_owned()),
            volumes: vec!["/data".to_owned()],
            ..image(config)
        };
        let said = configuration_json(&image, &[]);
        let wanted = json!({
            "User": "26",
            "Entrypoint": ["/a", "b"],
            "Env": ["PATH=/x", "A=1"],
            "WorkingDir": "/w",
            "StopSignal": "SIGINT",
            "Volumes": {"/data": {}},
        });
        assert_eq!(said["config"], wanted);
    }

    #[test]
    fn an_archive_holds_each_layer_once_and_is_the_same_whenever_it_is_made() {
        let place = std::env::temp_dir().join(format!("m-archive-{}", std::process::id()));
        let root = place.join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/name"), "one").unwrap();
        let out = place.join("image.tar");
        let pack = || {
            let layer = Layer::pack(&root, &place.join("layers")).unwrap();
            let image = |name: &str, workdir: &str| Image {
                names: vec![name.to_owned()],
                config: Config { workdir: workdir.to_owned(), ..Config::default() },
                layers: vec![&layer],
                stop_signal: None,
                volumes: Vec::new(),
            };
            write(&[image("localhost/a:1", "/"), image("localhost/b:1", "/b")], &out).unwrap();
            (layer.digest.clone(), fs::read(&out).unwrap())
        };
        let (digest, first) = pack();
        fs::write(root.join("etc/name"), "one").unwrap();
        assert_eq!(pack().1, first, "times of files are in the archive");

        let list = command::run_quietly(Command::new("tar").arg("-tf").arg(&out)).unwrap();
        let layers: Vec<&str> = list.lines().filter(|line| line.ends_with(".tar")).collect();
        assert_eq!(layers, [format!("{digest}.tar")]);
        let mut show = Command::new("tar");
        show.arg("-xOf").arg(&out).arg("manifest.json");
        let said: Value = serde_json::from_str(&command::run_quietly(&mut show).unwrap()).unwrap();
        for (entry, name) in said.as_array().unwrap().iter().zip(["localhost/a:1", "localhost/b:1"])
        {
            assert_eq!(entry["RepoTags"], json!([name]));
            assert_eq!(entry["Layers"], json!([format!("{digest}.tar")]));
            assert!(list.lines().any(|line| line == entry["Config"]), "{list}");
        }
        assert!(!out.with_extension("parts").exists());
        fs::remove_dir_all(place).unwrap();
    }
}
