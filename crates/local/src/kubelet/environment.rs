//! A container's environment variables, as kubelet makes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVar, Pod, Secret};
use kube::Api;

/// Why a container's environment cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// An object that it takes values from cannot be read.
    #[error("cannot read {kind} {name}")]
    Read {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object is not there.
    #[error("{kind} {name} not found")]
    Missing {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object lacks the key.
    #[error("{kind} {name} has no key {key}")]
    MissingKey {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field of the pod that cannot be given.
    #[error("the field {0} of the pod cannot become an environment variable")]
    Field(String),
}

/// Data of Secrets and ConfigMaps, read once per container start.
pub(super) struct References {
    client: kube::Client,
    namespace: String,
}

impl References {
    pub(super) fn new(client: kube::Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// Values of a Secret; none if it does not exist.
    pub(super) async fn secret(
        &self,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, EnvironmentError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = api.get_opt(name).await.map_err(|source| EnvironmentError::Read {
            kind: "Secret",
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        Ok(secret.map(|secret| {
            let mut values: BTreeMap<String, Vec<u8>> =
                secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
            values.extend(
                secret.string_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into())),
            );
            values
        }))
    }

    /// Values of a ConfigMap; none if it does not exist.
    pub(super) async fn config_map(
        &self,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, EnvironmentError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = api.get_opt(name).await.map_err(|source| EnvironmentError::Read {
            kind: "ConfigMap",
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        Ok(map.map(|map| {
            let mut values: BTreeMap<String, Vec<u8>> = map
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, value.into_bytes()))
                .collect();
            values.extend(
                map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)),
            );
            values
        }))
    }
}

/// The variables of `container`: first envFrom, then env in order, later ones seeing earlier ones
/// through `$(NAME)`.
pub(super) async fn resolve(
    references: &References,
    pod: &Pod,
    container: &Container,
    base: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut variables = base;
    for source in container.env_from.iter().flatten() {
        variables.extend(from_source(references, source).await?);
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(references, pod, variable, &variables).await? {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

async fn from_source(
    references: &References,
    source: &EnvFromSource,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let (kind, name, optional, values) = if let Some(secret) = &source.secret_ref {
        ("Secret", &secret.name, secret.optional, references.secret(&secret.name).await?)
    } else if let Some(map) = &source.config_map_ref {
        ("ConfigMap", &map.name, map.optional, references.config_map(&map.name).await?)
    } else {
        return Ok(BTreeMap::new());
    };
    let prefix = source.prefix.as_deref().unwrap_or_default();
    match values {
        Some(values) => Ok(values
            .into_iter()
            .filter_map(|(key, value)| {
                Some((format!("{prefix}{key}"), String::from_utf8(value).ok()?))
            })
            .collect()),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvironmentError::Missing { kind, name: name.clone() }),
    }
}

async fn value_of(
    references: &References,
    pod: &Pod,
    variable: &EnvVar,
    known: &BTreeMap<String, String>,
) -> Result<Option<String>, EnvironmentError> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), known)));
    };
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path).map(Some);
    }
    let (kind, name, key, optional, values) = if let Some(secret) = &source.secret_key_ref {
        let values = references.secret(&secret.name).await?;
        ("Secret", &secret.name, &secret.key, secret.optional, values)
    } else if let Some(map) = &source.config_map_key_ref {
        let values = references.config_map(&map.name).await?;
        ("ConfigMap", &map.name, &map.key, map.optional, values)
    } else {
        return Err(EnvironmentError::Field(variable.name.clone()));
    };
    let optional = optional == Some(true);
    let Some(values) = values else {
        return if optional {
            Ok(None)
        } else {
            Err(EnvironmentError::Missing { kind, name: name.clone() })
        };
    };
    match values.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(EnvironmentError::MissingKey { kind, name: name.clone(), key: key.clone() }),
    }
}

/// A field of the pod by the downward API's path.
pub(super) fn field_value(pod: &Pod, path: &str) -> Result<String, EnvironmentError> {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let value = match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => status.and_then(|status| status.pod_ip.clone()),
        "status.hostIP" | "status.hostIPs" => status.and_then(|status| status.host_ip.clone()),
        "metadata.labels" => Some(lines(pod.metadata.labels.as_ref())),
        "metadata.annotations" => Some(lines(pod.metadata.annotations.as_ref())),
        other => return keyed(pod, other),
    };
    Ok(value.unwrap_or_default())
}

fn keyed(pod: &Pod, path: &str) -> Result<String, EnvironmentError> {
    let unknown = || EnvironmentError::Field(path.to_owned());
    let (map, key) =
        path.strip_suffix("']").and_then(|p| p.split_once("['")).ok_or_else(unknown)?;
    let values = match map {
        "metadata.labels" => &pod.metadata.labels,
        "metadata.annotations" => &pod.metadata.annotations,
        _ => return Err(unknown()),
    };
    Ok(values.as_ref().and_then(|values| values.get(key)).cloned().unwrap_or_default())
}

fn lines(values: Option<&BTreeMap<String, String>>) -> String {
    values.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}\n")).collect()
}

/// Replaces `$(NAME)` by known variables; `$$(NAME)` stays `$(NAME)`, unknown names stay as they
/// are.
pub(super) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) =
            tail.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match known.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
            rest = tail;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_variables_are_expanded_as_kubernetes_does() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x$(A)y", &known), "x1y");
        assert_eq!(expand("$$(A)", &known), "$(A)");
        assert_eq!(expand("$(B) $ $(", &known), "$(B) $ $(");
    }

    #[test]
    fn fields_of_the_pod_are_given() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("c-1".to_owned());
        pod.metadata.labels = Some(BTreeMap::from([("a/b".to_owned(), "v".to_owned())]));
        assert_eq!(field_value(&pod, "metadata.name").unwrap(), "c-1");
        assert_eq!(field_value(&pod, "metadata.labels['a/b']").unwrap(), "v");
        assert!(field_value(&pod, "spec.hostname").is_err());
    }
}
