//! What a request asks for: its path and query.

use std::collections::BTreeMap;

use axum::extract::Query;
use http::Uri;
use matriarch_store::{FieldValidation, Refusal, ResourceId};

/// The query of a request.
#[derive(Clone, Debug, Default)]
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub fn of(uri: &Uri) -> Self {
        Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|Query(pairs)| Self(pairs.into_iter().collect()))
            .unwrap_or_default()
    }

    /// A parameter that is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True"))
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    pub fn dry_run(&self) -> Result<bool, Refusal> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Refusal::BadRequest(format!(
                "dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
        }
    }

    pub fn field_validation(&self) -> Result<FieldValidation, Refusal> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(Refusal::BadRequest(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Something with no resource: discovery, health, version.
    Plain(Vec<String>),
    /// A resource.
    Resource(Box<Place>),
}

/// A resource, an object or a subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub resource: ResourceId,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Route {
    pub fn parse(path: &str) -> Self {
        let steps: Vec<String> =
            path.split('/').filter(|step| !step.is_empty()).map(decode).collect();
        let parts: Vec<&str> = steps.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Self::Plain(steps),
        };
        let (namespace, rest) = match rest {
            // Namespaces themselves and their subresources are not in a namespace.
            ["namespaces", _, "status" | "finalize"] | ["namespaces", _] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let text = |part: Option<&&str>| part.map(|part| (*part).to_owned());
        match rest {
            [plural, more @ ..] if more.len() <= 2 => Self::Resource(Box::new(Place {
                resource: ResourceId::new(group, version, plural),
                namespace: namespace.map(str::to_owned),
                name: text(more.first()),
                subresource: text(more.get(1)),
            })),
            _ => Self::Plain(steps),
        }
    }
}

/// Percent-decoding of one step of a path.
fn decode(step: &str) -> String {
    let mut bytes = Vec::with_capacity(step.len());
    let mut rest = step.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = (*first == b'%')
            .then(|| more.get(..2))
            .flatten()
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> (String, Option<String>, Option<String>, Option<String>) {
        match Route::parse(path) {
            Route::Resource(place) => {
                (place.resource.plural, place.namespace, place.name, place.subresource)
            }
            Route::Plain(steps) => panic!("{path} is {steps:?}"),
        }
    }

    #[test]
    fn paths_are_read_as_kubernetes_does() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(place("/api/v1/namespaces"), ("namespaces".into(), None, None, None));
        assert_eq!(place("/api/v1/namespaces/a"), ("namespaces".into(), None, some("a"), None));
        assert_eq!(
            place("/api/v1/namespaces/a/pods/b/log"),
            ("pods".into(), some("a"), some("b"), some("log"))
        );
        assert_eq!(
            place("/apis/g.io/v1/namespaces/a/things"),
            ("things".into(), some("a"), None, None)
        );
        assert_eq!(
            place("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aa"),
            ("clusterroles".into(), None, some("system:a"), None)
        );
        assert!(matches!(Route::parse("/apis/g.io/v1"), Route::Plain(_)));
        assert!(matches!(Route::parse("/version"), Route::Plain(_)));
    }
}
