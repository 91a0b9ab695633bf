//! Names, uids and the rules of metadata.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use crate::{
    Cause, Moment, Refusal, ResourceType,
    builtin::Builtin,
    object, selector,
    store::{subject, subject_kind},
};

/// What generated names are made of: no vowels, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Most bytes of all annotations of an object.
const ANNOTATIONS: usize = 256 * 1024;

/// A time as `metav1.Time` writes it.
#[must_use]
pub fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A new random uid (RFC 4122, version 4).
pub fn uid(moment: &mut Moment<'_>) -> String {
    let high = ((moment.random)() & 0xffff_ffff_ffff_0fff) | 0x4000;
    let low = ((moment.random)() & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// Gives a new object its name and namespace.
pub(crate) fn settle(
    resource: &ResourceType,
    namespace: &str,
    object: &mut Value,
    moment: &mut Moment<'_>,
) -> Result<(), Refusal> {
    let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
    if object::name(object).is_empty() {
        if prefix.is_empty() {
            return Err(Refusal::Invalid {
                subject: subject_kind(resource, ""),
                causes: vec![Cause::required("metadata.name", "name or generateName is required")],
            });
        }
        let room = prefix.char_indices().nth(58).map_or(prefix.len(), |(index, _)| index);
        let suffix: String = (0..5)
            .map(|_| {
                let index = (moment.random)() % ALPHABET.len() as u64;
                char::from(ALPHABET[usize::try_from(index).unwrap_or_default()])
            })
            .collect();
        let name = format!("{}{suffix}", &prefix[..room]);
        object::metadata(object).insert("name".into(), name.into());
    }
    if resource.namespaced {
        let own = object::namespace(object);
        if !own.is_empty() && own != namespace {
            return Err(Refusal::BadRequest(
                "the namespace of the provided object does not match the namespace sent on the request".into(),
            ));
        }
        object::metadata(object).insert("namespace".into(), namespace.into());
    } else {
        object::remove(object::metadata(object), "namespace");
    }
    Ok(())
}

fn is_dns_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Whether the text is a DNS subdomain.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// The rules of metadata that hold for every kind.
pub(crate) fn check(resource: &ResourceType, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if old.is_none() {
        causes.extend(check_name(resource, object::name(object)));
    }
    causes.extend(check_labels(&object["metadata"]["labels"]));
    causes.extend(check_annotations(&object["metadata"]["annotations"]));
    for finalizer in object::finalizers(object) {
        let known = matches!(
            finalizer.as_str(),
            "kubernetes"
                | "orphan"
                | "foregroundDeletion"
                | "customresourcecleanup.apiextensions.k8s.io"
        );
        if !known && !is_qualified(&finalizer) {
            causes.push(Cause::invalid("metadata.finalizers", &quoted(&finalizer), QUALIFIED));
        }
    }
    for owner in object["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::invalid(
                    format!("metadata.ownerReferences.{field}"),
                    "\"\"",
                    &format!(
                        "{} must not be empty",
                        if field == "apiVersion" { "version" } else { field }
                    ),
                ));
            }
        }
    }
    if let Some(old) = old
        && object::is_deleting(old)
    {
        let before = object::finalizers(old);
        let new: Vec<String> = object::finalizers(object)
            .into_iter()
            .filter(|finalizer| !before.contains(finalizer))
            .map(|finalizer| quoted(&finalizer))
            .collect();
        if !new.is_empty() {
            causes.push(Cause::forbidden(
                "metadata.finalizers",
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    new.join(", ")
                ),
            ));
        }
    }
    causes
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn check_name(resource: &ResourceType, name: &str) -> Vec<Cause> {
    let bad = |detail: &str| vec![Cause::invalid("metadata.name", &quoted(name), detail)];
    match resource.builtin {
        Some(
            Builtin::Role
            | Builtin::RoleBinding
            | Builtin::ClusterRole
            | Builtin::ClusterRoleBinding,
        ) => {
            if name == "." || name == ".." {
                return bad(&format!("may not be '{name}'"));
            }
            match name.chars().find(|c| matches!(c, '/' | '%')) {
                Some(found) => bad(&format!("may not contain '{found}'")),
                None => Vec::new(),
            }
        }
        Some(Builtin::Namespace) if !is_dns_label(name) => bad(LABEL),
        Some(Builtin::Service)
            if !is_dns_label(name) || name.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            bad(LABEL_1035)
        }
        Some(Builtin::Namespace | Builtin::Service) if name.len() > 63 => {
            bad("must be no more than 63 bytes")
        }
        _ if name.len() > 253 => bad("must be no more than 253 bytes"),
        _ if !is_subdomain(name) => bad(SUBDOMAIN),
        _ => Vec::new(),
    }
}

fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && selector::is_label_text(name),
        None => selector::is_label_text(text),
    }
}

fn check_labels(labels: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid("metadata.labels", &quoted(key), QUALIFIED));
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            causes.push(Cause::invalid(
                "metadata.labels",
                &quoted(text),
                "must be no more than 63 bytes",
            ));
        } else if !text.is_empty() && !selector::is_label_text(text) {
            causes.push(Cause::invalid("metadata.labels", &quoted(text), LABEL_VALUE));
        }
    }
    causes
}

fn check_annotations(annotations: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        if !is_qualified(&key.to_ascii_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &quoted(key), QUALIFIED));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: "metadata.annotations".into(),
            message: format!("Too long: may not be more than {ANNOTATIONS} bytes"),
        });
    }
    causes
}

/// A refusal that is about rights or rules outside the object.
#[must_use]
pub fn forbidden(resource: &ResourceType, name: &str, detail: impl Into<String>) -> Refusal {
    Refusal::Forbidden { subject: subject(resource, name), detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_4() {
        let mut random = || u64::MAX;
        let mut moment = Moment { now: Timestamp::UNIX_EPOCH, random: &mut random };
        assert_eq!(uid(&mut moment), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn times_have_whole_seconds() {
        let at: Timestamp = "2025-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(time(at), "2025-01-02T03:04:05Z");
    }
}
