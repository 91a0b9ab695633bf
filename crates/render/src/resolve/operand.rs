//! PostgreSQL's image, its major version, and the user that it runs as.

use matriarch_api::cluster::{ClusterSpec, ImageInfo};
use matriarch_pg::version::Major;
use matriarch_plan::Seen;
use matriarch_plan::spec::ImageProblem;

use super::Findings;
use crate::references::{CatalogName, References};
use crate::setup::Owner;

/// `postgres` in CloudNativePG's images, and in all that are made from them.
const CLOUD_NATIVE_PG: i64 = 26;
/// `postgres` in the official images.
const OFFICIAL: i64 = 999;

/// The user that PostgreSQL runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub uid: i64,
    pub gid: i64,
}

/// The user. What was used when the first instance was made stays: PostgreSQL starts on no data of
/// another user's, so a new name of the image must not bring a new default.
pub(super) fn user(owner: &Owner<'_>, image: &str, findings: &mut Findings) -> User {
    let spec = &owner.cluster.spec;
    let default = default_id(image);
    let used = used(owner);
    let (path, written) = written_uid(spec);
    let uid = match (written, used) {
        (Some(0), _) => {
            findings.add(path, "PostgreSQL does not run as root; write another user id");
            default
        }
        (Some(written), Some(used)) if written != used.uid => {
            findings.add(
                path,
                format!("the data belongs to user id {}, and PostgreSQL starts on no data of another user's; write {} again, or make a new cluster", used.uid, used.uid),
            );
            used.uid
        }
        (Some(written), _) => written,
        (None, Some(used)) => used.uid,
        (None, None) => default,
    };
    let gid = written_gid(spec).unwrap_or_else(|| used.map_or(default, |used| used.gid));
    User { uid, gid }
}

/// The user of the instances that are there.
fn used(owner: &Owner<'_>) -> Option<User> {
    let status = owner.cluster.status.as_ref()?;
    status.pg_data_image_info.as_ref()?;
    let effective = status.effective.as_ref()?;
    Some(User { uid: effective.postgres_uid?, gid: effective.postgres_gid? })
}

/// The user id that the user wrote, from what counts most in a pod downwards, and where.
fn written_uid(spec: &ClusterSpec) -> (&'static str, Option<i64>) {
    let container = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let pod = spec.pod_security_context.as_ref().and_then(|context| context.run_as_user);
    if container.is_some() {
        ("spec.securityContext.runAsUser", container)
    } else if pod.is_some() {
        ("spec.podSecurityContext.runAsUser", pod)
    } else {
        ("spec.postgresUID", spec.postgres_uid)
    }
}

fn written_gid(spec: &ClusterSpec) -> Option<i64> {
    let container = spec.security_context.as_ref().and_then(|context| context.run_as_group);
    let pod = spec.pod_security_context.as_ref().and_then(|context| context.run_as_group);
    container.or(pod).or(spec.postgres_gid)
}

/// Which id an image knows `postgres` by (docs/decisions/0007). A pod runs with any: the passwd file
/// that it mounts names the one that is used.
fn default_id(image: &str) -> i64 {
    let (repository, _) = repository_and_tag(image);
    let official = repository == "postgres" || repository.ends_with("library/postgres");
    if official { OFFICIAL } else { CLOUD_NATIVE_PG }
}

/// PostgreSQL's image.
pub(super) struct Image {
    pub name: String,
    /// Its major version, if it is known.
    pub major: Option<Major>,
    /// Why it is the last one known and not the one that the spec leads to, or why there is none.
    pub problem: Option<ImageProblem>,
    /// Fields of the catalog without effect: path and sentence.
    pub unsupported: Vec<(String, String)>,
}

/// The image that the spec leads to. Without a word of the user's it is the one that the first
/// instance was made with: the default of a newer operator must restart no database (I14).
pub(super) fn image(owner: &Owner<'_>, references: &References, findings: &mut Findings) -> Image {
    let spec = &owner.cluster.spec;
    let image = match (&spec.image_name, CatalogName::of(spec)) {
        (Some(name), _) => tagged(name.clone(), findings),
        (None, Some(catalog)) => from_catalog(owner, references, &catalog, findings),
        (None, None) => {
            let first = in_use(owner).and_then(|info| info.image.clone());
            tagged(first.unwrap_or_else(|| owner.setup.postgres_image.clone()), findings)
        }
    };
    let data = in_use(owner).and_then(|info| info.major_version);
    if let (Some(major), Some(data)) = (image.major, data)
        && Ok(data) != i32::try_from(major.number())
    {
        let path = match CatalogName::of(spec) {
            Some(_) => "spec.imageCatalogRef.major",
            None => "spec.imageName",
        };
        findings.add(
            path,
            format!("{:?} has PostgreSQL {major}, and the data is of PostgreSQL {data}: an upgrade to another major version has no effect yet; name PostgreSQL {data}", image.name),
        );
    }
    image
}

/// The image of the instances that are there.
fn in_use<'a>(owner: &Owner<'a>) -> Option<&'a ImageInfo> {
    owner.cluster.status.as_ref()?.pg_data_image_info.as_ref()
}

fn tagged(name: String, findings: &mut Findings) -> Image {
    let major = major(&name, findings);
    Image { name, major, problem: None, unsupported: Vec::new() }
}

/// What a catalog has for the major version that is wished. A catalog that has nothing, or is not
/// there, stops no instance: the image of before goes on, if it is of that major version.
fn from_catalog(
    owner: &Owner<'_>,
    references: &References,
    catalog: &CatalogName,
    findings: &mut Findings,
) -> Image {
    let wished = owner.cluster.spec.image_catalog_ref.as_ref().and_then(|it| it.major);
    let number = wished.unwrap_or_default();
    let major = Major::ALL.into_iter().find(|major| i32::try_from(major.number()) == Ok(number));
    if major.is_none() {
        let known = Major::ALL.map(|major| major.number().to_string()).join(", ");
        findings.add(
            "spec.imageCatalogRef.major",
            format!("PostgreSQL {number} is not known; known are {known}"),
        );
    }
    let shown = catalog.shown();
    let why = match references.catalog(catalog) {
        Seen::Known(spec) => match spec.image_of(number) {
            Some(image) => {
                let entry = spec.images.iter().find(|it| it.major == wished);
                let extensions = entry.is_some_and(|it| !it.extensions.is_empty());
                let path = format!("{shown} spec.images[major {number}].extensions");
                let sentence = "the image's own extensions are there".to_owned();
                let unsupported = if extensions { vec![(path, sentence)] } else { Vec::new() };
                let name = image.to_owned();
                return Image { name, major, problem: None, unsupported };
            }
            None => format!("{shown} has no image of PostgreSQL {number}; add one to it"),
        },
        Seen::Absent => format!("{shown} is not there; make it, or name another one"),
        Seen::Stale(_) => format!("{shown} was not read anew"),
        Seen::Unknown { why } => format!("{shown} cannot be read: {why}"),
    };
    let last = in_use(owner).filter(|info| info.major_version == wished);
    let (name, message) = match last.and_then(|info| info.image.clone()) {
        Some(last) => (last.clone(), format!("{why}. {last} goes on until then")),
        None => {
            findings.add("spec.imageCatalogRef", why.clone());
            (String::new(), why)
        }
    };
    let problem = Some(ImageProblem { object: shown, message });
    Image { name, major, problem, unsupported: Vec::new() }
}

/// A colon before a slash is one before a registry's port.
fn repository_and_tag(image: &str) -> (&str, &str) {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        Some(_) | None => (name, ""),
    }
}

/// The major version that an image's tag begins with.
fn major(image: &str, findings: &mut Findings) -> Option<Major> {
    let (_, tag) = repository_and_tag(image);
    let digits: String = tag.chars().take_while(char::is_ascii_digit).collect();
    let Ok(number) = digits.parse::<u32>() else {
        findings.add(
            "spec.imageName",
            format!("the tag of {image:?} does not begin with PostgreSQL's major version, like 17 or 17.6; choose one that does"),
        );
        return None;
    };
    let major = Major::ALL.into_iter().find(|major| major.number() == number);
    if major.is_none() {
        let known = Major::ALL.map(|major| major.number().to_string()).join(", ");
        findings.add(
            "spec.imageName",
            format!("PostgreSQL {number} of {image:?} is not known; known are {known}"),
        );
    }
    major
}
