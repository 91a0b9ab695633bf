//! PostgreSQL's image, its major version, and the user that it runs as.

use matriarch_api::cluster::ClusterSpec;
use matriarch_pg::version::Major;

use super::Findings;
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

/// A colon before a slash is one before a registry's port.
fn repository_and_tag(image: &str) -> (&str, &str) {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        Some(_) | None => (name, ""),
    }
}

/// The major version of the image, if it can be used: that of the data, once there is data.
pub(super) fn usable_major(
    owner: &Owner<'_>,
    image: &str,
    findings: &mut Findings,
) -> Option<Major> {
    let major = major(image, findings)?;
    let status = owner.cluster.status.as_ref();
    let data = status.and_then(|status| status.pg_data_image_info.as_ref()?.major_version);
    if let Some(data) = data
        && Ok(data) != i32::try_from(major.number())
    {
        findings.add(
            "spec.imageName",
            format!("{image:?} has PostgreSQL {major}, and the data is of PostgreSQL {data}: an upgrade to another major version has no effect yet; write an image of PostgreSQL {data}"),
        );
    }
    Some(major)
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
