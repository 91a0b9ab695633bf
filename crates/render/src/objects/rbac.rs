//! What the pods may do: by name, and nothing on pods but to look at their own.

use matriarch_api::{Kind, names};
use serde_json::{Value, json};

use crate::resolve::Resolved;
use crate::setup::Owner;

/// Identity of the pods.
pub fn service_account(owner: &Owner<'_>) -> Value {
    let mut account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": owner.metadata(&names::service_account(owner.name())),
        "automountServiceAccountToken": false,
    });
    let template = owner.cluster.spec.service_account_template.as_ref();
    if let Some(metadata) = template
        .and_then(|template| serde_json::to_value(template).ok())
        .and_then(|template| template.get("metadata").cloned())
    {
        for kind in ["labels", "annotations"] {
            let Some(extra) = metadata[kind].as_object() else { continue };
            if !account["metadata"][kind].is_object() {
                account["metadata"][kind] = json!({});
            }
            for (key, value) in extra {
                // By our labels the operator finds what it has made.
                if account["metadata"][kind][key].is_null() {
                    account["metadata"][kind][key] = value.clone();
                }
            }
        }
    }
    account
}

/// The permissions of the cluster's agents. `create` cannot be limited by name: an agent could make
/// a Lease of another name, which nobody reads.
pub fn role(owner: &Owner<'_>, resolved: &Resolved, members: &[String]) -> Value {
    let cluster = owner.name();
    let group = owner.setup.identity.group();
    let instances = Kind::Instance.plural();
    let mut slices = vec![names::endpoint_slice_rw(cluster)];
    slices.extend(resolved.template.additional_endpoints.iter().map(|it| it.name.clone()));
    let mut rules = vec![
        rule(
            "coordination.k8s.io",
            "leases",
            &[names::lease(cluster)],
            &["get", "list", "watch", "patch", "update"],
        ),
        json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}),
        rule(
            "discovery.k8s.io",
            "endpointslices",
            &slices,
            &["get", "list", "watch", "patch", "update"],
        ),
        rule(group, Kind::Cluster.plural(), &[cluster.to_owned()], &["get"]),
        rule(group, instances, members, &["get", "list", "watch"]),
        rule(group, &format!("{instances}/status"), members, &["get", "patch", "update"]),
        rule("", "pods", members, &["get"]),
        // No list and no watch: the operator may not grant what it does not have (traps K4).
        rule("", "secrets", &resolved.agent_secrets(), &["get"]),
    ];
    let maps = resolved.agent_config_maps();
    if !maps.is_empty() {
        rules.push(rule("", "configmaps", &maps, &["get"]));
    }
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": owner.metadata(&names::service_account(cluster)),
        "rules": rules,
    })
}

fn rule(group: &str, resource: &str, names: &[String], verbs: &[&str]) -> Value {
    json!({
        "apiGroups": [group],
        "resources": [resource],
        "resourceNames": names,
        "verbs": verbs,
    })
}

/// Gives the Role to the pods' ServiceAccount.
pub fn role_binding(owner: &Owner<'_>, resolved: &Resolved) -> Value {
    let name = names::service_account(owner.name());
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": owner.metadata(&name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{
            "kind": "ServiceAccount",
            "name": resolved.service_account,
            "namespace": owner.cluster.namespace(),
        }],
    })
}
