//! A pod's volumes as directories, and a container's root directory made of links to them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, PersistentVolumeClaim, Pod, Volume,
    VolumeProjection,
};
use kube::Api;

use super::Shared;
use super::environment::{EnvironmentError, References, field_value};
use crate::layout::{make_directory, write_file};

/// Why a pod's volumes cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// An object that a volume is made from.
    #[error("volume {volume}")]
    Source {
        /// The volume.
        volume: String,
        /// Why.
        #[source]
        source: EnvironmentError,
    },
    /// A claim cannot be read.
    #[error("cannot read PersistentVolumeClaim {claim}")]
    ReadClaim {
        /// The claim.
        claim: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A claim is missing or not yet bound.
    #[error("PersistentVolumeClaim {0} is not bound yet")]
    Unbound(String),
    /// A kind of volume that one machine does not have.
    #[error("volume {0} is of a kind that one-machine mode does not have")]
    Kind(String),
    /// A path that leaves the volume.
    #[error("volume {volume} has the path {path}, which is not below it")]
    Path {
        /// The volume.
        volume: String,
        /// The path.
        path: String,
    },
    /// A container mounts what is not there.
    #[error("container {container} mounts the volume {volume}, which the pod does not have")]
    Unknown {
        /// The container.
        container: String,
        /// The volume.
        volume: String,
    },
    /// A file cannot be made.
    #[error("cannot make {path}")]
    Make {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn make_error(path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Make { path, source }
}

/// Directories of a pod's volumes by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Volumes {
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// Names of the volumes that outlive the pod.
    pub(super) persistent: Vec<String>,
}

/// Makes or renews every volume of `pod`. Existing emptyDirs keep their content.
pub(super) async fn prepare(shared: &Shared, pod: &Pod) -> Result<Volumes, VolumeError> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let base = shared.layout.pod(uid).join("v");
    own_directory(shared, &shared.layout.pod(uid), 0o711)?;
    own_directory(shared, &base, 0o711)?;
    let mut volumes = Volumes::default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let directory = if let Some(claim) = &volume.persistent_volume_claim {
            volumes.persistent.push(volume.name.clone());
            claimed(shared, pod, &claim.claim_name).await?
        } else {
            let directory = base.join(&volume.name);
            own_directory(shared, &directory, 0o700)?;
            fill(shared, pod, volume, &directory).await?;
            directory
        };
        volumes.directories.insert(volume.name.clone(), directory);
    }
    Ok(volumes)
}

fn own_directory(shared: &Shared, path: &Path, mode: u32) -> Result<(), VolumeError> {
    make_directory(path, mode).and_then(|()| shared.run_as.give(path)).map_err(make_error(path))
}

async fn claimed(shared: &Shared, pod: &Pod, name: &str) -> Result<PathBuf, VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<PersistentVolumeClaim> = Api::namespaced(shared.client.clone(), namespace);
    let claim = api.get_opt(name).await.map_err(|source| VolumeError::ReadClaim {
        claim: name.to_owned(),
        source: Box::new(source),
    })?;
    let volume = claim
        .filter(|claim| claim.metadata.deletion_timestamp.is_none())
        .filter(|claim| claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound"))
        .and_then(|claim| claim.spec?.volume_name)
        .ok_or_else(|| VolumeError::Unbound(name.to_owned()))?;
    let directory = shared.layout.volumes().join(volume);
    if directory.is_dir() { Ok(directory) } else { Err(VolumeError::Unbound(name.to_owned())) }
}

async fn fill(
    shared: &Shared,
    pod: &Pod,
    volume: &Volume,
    directory: &Path,
) -> Result<(), VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let references = References::new(shared.client.clone(), namespace);
    let failed = |source| VolumeError::Source { volume: volume.name.clone(), source };
    let mut files = BTreeMap::new();
    if volume.empty_dir.is_some() {
        return Ok(());
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let values = references.secret(name).await.map_err(failed)?;
        let chosen = choose("Secret", name, values, secret.items.as_deref(), secret.optional);
        files.extend(chosen.map_err(failed)?);
    } else if let Some(map) = &volume.config_map {
        let values = references.config_map(&map.name).await.map_err(failed)?;
        let chosen = choose("ConfigMap", &map.name, values, map.items.as_deref(), map.optional);
        files.extend(chosen.map_err(failed)?);
    } else if let Some(downward) = &volume.downward_api {
        files.extend(downward_files(pod, downward.items.as_deref()).map_err(failed)?);
    } else if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            files.extend(project(shared, pod, &references, source).await.map_err(failed)?);
        }
    } else {
        return Err(VolumeError::Kind(volume.name.clone()));
    }
    for (path, content) in files {
        place(shared, &volume.name, directory, &path, &content)?;
    }
    Ok(())
}

type Files = BTreeMap<String, Vec<u8>>;

fn choose(
    kind: &'static str,
    name: &str,
    values: Option<Files>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
) -> Result<Files, EnvironmentError> {
    let optional = optional == Some(true);
    let Some(mut values) = values else {
        return if optional {
            Ok(Files::new())
        } else {
            Err(EnvironmentError::Missing { kind, name: name.to_owned() })
        };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else { return Ok(values) };
    let mut chosen = Files::new();
    for item in items {
        match values.remove(&item.key) {
            Some(value) => drop(chosen.insert(item.path.clone(), value)),
            None if optional => {}
            None => {
                let (name, key) = (name.to_owned(), item.key.clone());
                return Err(EnvironmentError::MissingKey { kind, name, key });
            }
        }
    }
    Ok(chosen)
}

fn downward_files(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
) -> Result<Files, EnvironmentError> {
    items
        .into_iter()
        .flatten()
        .map(|item| match &item.field_ref {
            Some(field) => {
                Ok((item.path.clone(), field_value(pod, &field.field_path)?.into_bytes()))
            }
            None => Err(EnvironmentError::Field(item.path.clone())),
        })
        .collect()
}

async fn project(
    shared: &Shared,
    pod: &Pod,
    references: &References,
    source: &VolumeProjection,
) -> Result<Files, EnvironmentError> {
    if let Some(token) = &source.service_account_token {
        let value = super::service_account_token(shared, pod);
        return Ok(Files::from([(token.path.clone(), value.into_bytes())]));
    }
    if let Some(secret) = &source.secret {
        let values = references.secret(&secret.name).await?;
        return choose("Secret", &secret.name, values, secret.items.as_deref(), secret.optional);
    }
    if let Some(map) = &source.config_map {
        // Every namespace of a real cluster has it; it holds the API server's CA.
        let values = if map.name == "kube-root-ca.crt" {
            Some(Files::from([("ca.crt".to_owned(), shared.ca_certificate.clone().into_bytes())]))
        } else {
            references.config_map(&map.name).await?
        };
        return choose("ConfigMap", &map.name, values, map.items.as_deref(), map.optional);
    }
    downward_files(pod, source.downward_api.as_ref().and_then(|d| d.items.as_deref()))
}

/// The files that every pod finds under /var/run/secrets/kubernetes.io/serviceaccount unless it
/// mounts its own.
pub(super) fn service_account(
    shared: &Shared,
    pod: &Pod,
    directory: &Path,
) -> Result<(), VolumeError> {
    own_directory(shared, directory, 0o700)?;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let token = super::service_account_token(shared, pod);
    for (name, content) in
        [("token", token), ("ca.crt", shared.ca_certificate.clone()), ("namespace", namespace)]
    {
        place(shared, "serviceaccount", directory, name, content.as_bytes())?;
    }
    Ok(())
}

fn place(
    shared: &Shared,
    volume: &str,
    directory: &Path,
    path: &str,
    content: &[u8],
) -> Result<(), VolumeError> {
    let relative = Path::new(path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(VolumeError::Path { volume: volume.to_owned(), path: path.to_owned() });
    }
    let mut parent = directory.to_owned();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        parent.push(part);
        own_directory(shared, &parent, 0o700)?;
    }
    let target = directory.join(relative);
    if fs::read(&target).is_ok_and(|old| old == content) {
        return Ok(());
    }
    write_file(&target, content, 0o400)
        .and_then(|()| shared.run_as.give(&target))
        .map_err(make_error(&target))
}

/// Makes the root directory of `container`: a link at every mount path. Links lie in the real
/// directories of outer mounts, so `/controller/run` inside `/controller` works.
pub(super) fn mount(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    root: &Path,
    volumes: &Volumes,
) -> Result<(), VolumeError> {
    own_directory(shared, root, 0o711)?;
    let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
    mounts.sort_by_key(|mount| mount.mount_path.len());
    for mount in &mounts {
        let mut source = volumes.directories.get(&mount.name).cloned().ok_or_else(|| {
            VolumeError::Unknown { container: container.name.clone(), volume: mount.name.clone() }
        })?;
        if let Some(sub) = &mount.sub_path {
            source.push(inside(&mount.name, sub)?);
            if !source.exists() {
                own_directory(shared, &source, 0o700)?;
            }
        }
        link(shared, &source, &root.join(inside(&mount.name, &mount.mount_path)?))?;
    }
    let account = "var/run/secrets/kubernetes.io/serviceaccount";
    let mounted = mounts.iter().any(|m| m.mount_path.trim_matches('/') == account);
    let wanted = pod.spec.as_ref().and_then(|s| s.automount_service_account_token) != Some(false);
    if !mounted && wanted {
        let directory = shared
            .layout
            .pod(pod.metadata.uid.as_deref().unwrap_or_default())
            .join("v")
            .join("serviceaccount-token");
        service_account(shared, pod, &directory)?;
        link(shared, &directory, &root.join(account))?;
    }
    for directory in ["tmp", "dev"] {
        own_directory(shared, &root.join(directory), 0o700)?;
    }
    Ok(())
}

/// A path of the container as a path below its root.
fn inside(volume: &str, path: &str) -> Result<PathBuf, VolumeError> {
    let relative = PathBuf::from(path.trim_start_matches('/'));
    if relative.as_os_str().is_empty()
        || !relative.components().all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(VolumeError::Path { volume: volume.to_owned(), path: path.to_owned() });
    }
    Ok(relative)
}

fn link(shared: &Shared, source: &Path, target: &Path) -> Result<(), VolumeError> {
    if fs::read_link(target).is_ok_and(|old| old == source) {
        return Ok(());
    }
    let mut missing = Vec::new();
    let mut parent = target.parent();
    while let Some(directory) = parent.filter(|directory| !directory.exists()) {
        missing.push(directory.to_owned());
        parent = directory.parent();
    }
    for directory in missing.iter().rev() {
        own_directory(shared, directory, 0o711)?;
    }
    if fs::symlink_metadata(target).is_ok_and(|old| old.is_symlink()) {
        fs::remove_file(target).map_err(make_error(target))?;
    }
    std::os::unix::fs::symlink(source, target)
        .and_then(|()| shared.run_as.give(target))
        .map_err(make_error(target))
}
