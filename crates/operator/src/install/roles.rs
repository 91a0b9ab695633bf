//! Roles of the operator, made from the table, and of users.

use matriarch_api::Kind;
use serde_json::{Value, json};

use super::{Options, Scope, permissions};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// What the operator may do in its own namespace, whatever it serves.
pub fn leader_role(options: &Options) -> Value {
    json!({
        "apiVersion": RBAC,
        "kind": "Role",
        "metadata": leader_metadata(options),
        "rules": permissions::own_rules(options.identity),
    })
}

/// Gives that to the operator.
pub fn leader_role_binding(options: &Options) -> Value {
    binding(options, "RoleBinding", "Role", &leader_metadata(options))
}

fn leader_metadata(options: &Options) -> Value {
    let mut metadata = options.metadata();
    metadata["name"] = json!(format!("{}-leader-election", options.name()));
    metadata
}

/// What the operator may do in all namespaces.
pub fn operator_cluster_role(options: &Options) -> Value {
    json!({
        "apiVersion": RBAC,
        "kind": "ClusterRole",
        "metadata": options.metadata_named(&options.name()),
        "rules": permissions::rules(&Scope::ClusterWide, options.identity),
    })
}

/// Gives that to the operator.
pub fn operator_cluster_role_binding(options: &Options) -> Value {
    let metadata = options.metadata_named(&options.name());
    binding(options, "ClusterRoleBinding", "ClusterRole", &metadata)
}

/// What the operator may do in one namespace that it serves.
pub fn operator_role(options: &Options, namespace: &str) -> Value {
    let scope = Scope::Namespaces(vec![namespace.to_owned()]);
    json!({
        "apiVersion": RBAC,
        "kind": "Role",
        "metadata": options.metadata_in(namespace),
        "rules": permissions::rules(&scope, options.identity),
    })
}

/// Gives that to the operator.
pub fn operator_role_binding(options: &Options, namespace: &str) -> Value {
    binding(options, "RoleBinding", "Role", &options.metadata_in(namespace))
}

/// The role has the binding's name.
fn binding(options: &Options, kind: &str, role: &str, metadata: &Value) -> Value {
    let role = json!({
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": role,
        "name": metadata["name"],
    });
    json!({
        "apiVersion": RBAC,
        "kind": kind,
        "metadata": metadata,
        "roleRef": role,
        "subjects": [{
            "kind": "ServiceAccount",
            "name": options.name(),
            "namespace": options.namespace,
        }],
    })
}

/// What users get through Kubernetes' own roles `view`, `edit` and `admin`. Instances are the
/// operator's and the agents' alone (traps W6).
pub fn user_roles(options: &Options) -> [Value; 2] {
    let group = options.identity.group();
    let (clusters, catalogs) = (Kind::Cluster.plural(), Kind::ImageCatalog.plural());
    let all = [clusters, catalogs, Kind::ClusterImageCatalog.plural()];
    let rule = |resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    let (status, scale) = (format!("{clusters}/status"), format!("{clusters}/scale"));
    let view = vec![rule(&all, &["get", "list", "watch"])];
    let edit = vec![
        rule(&[clusters, catalogs], &["create", "update", "patch", "delete", "deletecollection"]),
        // A switchover is asked for in the status, as in CloudNativePG's API.
        rule(&[&status], &["get", "update", "patch"]),
        rule(&[&scale], &["get", "update", "patch"]),
    ];
    [
        user_role(options, "view", &["view", "edit", "admin"], &view),
        user_role(options, "edit", &["edit", "admin"], &edit),
    ]
}

fn user_role(options: &Options, suffix: &str, into: &[&str], rules: &[Value]) -> Value {
    let mut metadata = options.metadata_named(&format!("{}-{suffix}", options.name()));
    for role in into {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        metadata["labels"][label] = json!("true");
    }
    json!({ "apiVersion": RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": rules })
}
