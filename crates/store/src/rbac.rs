//! Who may do what: Roles and RoleBindings, ClusterRoles and ClusterRoleBindings.

use serde_json::Value;

use crate::{Refusal, Store, status::Subject};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Subresource, empty for the object itself.
    pub subresource: &'a str,
    /// Namespace, empty for all or for resources without.
    pub namespace: &'a str,
    /// Name, empty where none is named.
    pub name: &'a str,
}

/// Whether a user may do something.
///
/// # Errors
/// [`Refusal::Forbidden`] where no binding of the user, or of one of the groups, grants it.
pub fn authorize(
    store: &Store,
    user: &str,
    groups: &[String],
    asked: &Attributes<'_>,
) -> Result<(), Refusal> {
    let bound = |binding: &Value| {
        binding["subjects"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|subject| is_subject(subject, user, groups))
    };
    let cluster = store.kept(GROUP, "clusterrolebindings", None).filter(|(_, one)| bound(one));
    for (_, binding) in cluster {
        if grants(store, binding, "", asked) {
            return Ok(());
        }
    }
    if !asked.namespace.is_empty() {
        let local =
            store.kept(GROUP, "rolebindings", Some(asked.namespace)).filter(|(_, one)| bound(one));
        for (key, binding) in local {
            if grants(store, binding, &key.namespace, asked) {
                return Ok(());
            }
        }
    }
    Err(refuse(user, asked))
}

fn is_subject(subject: &Value, user: &str, groups: &[String]) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user,
        Some("Group") => groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or_default();
            user == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

/// Whether the role of a binding grants it; `namespace` is empty for a ClusterRoleBinding.
fn grants(store: &Store, binding: &Value, namespace: &str, asked: &Attributes<'_>) -> bool {
    let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
    let role = match binding["roleRef"]["kind"].as_str() {
        Some("ClusterRole") => store.peek(GROUP, "clusterroles", "", name),
        Some("Role") if !namespace.is_empty() => store.peek(GROUP, "roles", namespace, name),
        _ => None,
    };
    role.and_then(|role| role["rules"].as_array())
        .into_iter()
        .flatten()
        .any(|rule| rule_grants(rule, asked))
}

fn rule_grants(rule: &Value, asked: &Attributes<'_>) -> bool {
    let listed = |field: &str, wanted: &str| {
        rule[field].as_array().into_iter().flatten().any(|one| one == "*" || one == wanted)
    };
    let names = rule["resourceNames"].as_array().map(Vec::as_slice).unwrap_or_default();
    let resource = if asked.subresource.is_empty() {
        listed("resources", asked.resource)
    } else {
        listed("resources", &format!("{}/{}", asked.resource, asked.subresource))
            || listed("resources", &format!("*/{}", asked.subresource))
    };
    resource
        && listed("verbs", asked.verb)
        && listed("apiGroups", asked.group)
        && (names.is_empty() || !asked.name.is_empty() && names.iter().any(|one| one == asked.name))
}

fn refuse(user: &str, asked: &Attributes<'_>) -> Refusal {
    let resource = if asked.subresource.is_empty() {
        asked.resource.to_owned()
    } else {
        format!("{}/{}", asked.resource, asked.subresource)
    };
    let place = if asked.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", asked.namespace)
    };
    Refusal::Forbidden {
        subject: Subject {
            group: asked.group.to_owned(),
            kind: asked.resource.to_owned(),
            name: asked.name.to_owned(),
        },
        detail: format!(
            "User {user:?} cannot {} resource {resource:?} in API group {:?} {place}",
            asked.verb, asked.group
        ),
    }
}
