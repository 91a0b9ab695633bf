//! What the operator may do: the one table from which its Roles are made, and with which a test
//! compares the requests that it really makes.

use matriarch_api::Identity;
use serde_json::{Value, json};

use super::Scope;
use crate::agents;

/// An API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Kubernetes' first, without a name.
    Core,
    /// `coordination.k8s.io`.
    Coordination,
    /// `discovery.k8s.io`.
    Discovery,
    /// `events.k8s.io`.
    Events,
    /// `policy`.
    Policy,
    /// `rbac.authorization.k8s.io`.
    Rbac,
    /// Ours: that of the identity.
    Own,
}

impl Group {
    /// Its name.
    pub const fn name(self, identity: Identity) -> &'static str {
        match self {
            Self::Core => "",
            Self::Coordination => "coordination.k8s.io",
            Self::Discovery => "discovery.k8s.io",
            Self::Events => "events.k8s.io",
            Self::Policy => "policy",
            Self::Rbac => "rbac.authorization.k8s.io",
            Self::Own => identity.group(),
        }
    }
}

/// What is done to objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read all.
    List,
    /// Follow all.
    Watch,
    /// Make one.
    Create,
    /// Replace one.
    Update,
    /// Change or apply one.
    Patch,
    /// Remove one.
    Delete,
}

impl Verb {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    /// Of which group.
    pub group: Group,
    /// The resource, with its subresource if any.
    pub resource: &'static str,
    /// Verbs of requests that the operator makes, wherever it is installed.
    pub used: &'static [Verb],
    /// Verbs that it uses only where a Role of the namespace gives them (traps K4).
    pub namespaced: &'static [Verb],
    /// Verbs of no request: the API server asks for them when the operator grants them to agents in
    /// a cluster's Role, or makes an object whose owner may not go before it.
    pub implied: &'static [Verb],
}

use Verb::{Create, Delete, Get, List, Patch, Update, Watch};

const fn row(group: Group, resource: &'static str, used: &'static [Verb]) -> Permission {
    Permission { group, resource, used, namespaced: &[], implied: &[] }
}

/// What it needs in each namespace that it serves.
pub const SERVED: [Permission; 18] = [
    row(Group::Own, "clusters", &[Get, List, Watch]),
    row(Group::Own, "clusters/status", &[Update]),
    row(Group::Own, "imagecatalogs", &[Get, List, Watch]),
    Permission { implied: &[Update], ..row(Group::Own, "clusters/finalizers", &[]) },
    Permission {
        implied: &[Get],
        ..row(Group::Own, "instances", &[List, Watch, Create, Patch, Delete])
    },
    Permission { implied: &[Get, Update, Patch], ..row(Group::Own, "instances/status", &[]) },
    Permission {
        implied: &[Get],
        ..row(Group::Core, "pods", &[List, Watch, Create, Patch, Delete])
    },
    row(Group::Core, "persistentvolumeclaims", &[List, Watch, Create, Patch, Delete]),
    Permission { namespaced: &[List, Watch], ..row(Group::Core, "secrets", &[Get, Create, Patch]) },
    row(Group::Core, "configmaps", &[Get, List, Watch, Create, Patch]),
    row(Group::Core, "services", &[Get, List, Watch, Create, Patch, Delete]),
    row(Group::Core, "serviceaccounts", &[Get, List, Watch, Create, Patch]),
    row(Group::Events, "events", &[Create, Patch]),
    Permission {
        implied: &[Update],
        ..row(Group::Coordination, "leases", &[Get, List, Watch, Create, Patch])
    },
    Permission {
        implied: &[Update],
        ..row(Group::Discovery, "endpointslices", &[Get, List, Watch, Create, Patch, Delete])
    },
    row(Group::Policy, "poddisruptionbudgets", &[Get, List, Watch, Create, Patch, Delete]),
    row(Group::Rbac, "roles", &[Get, List, Watch, Create, Patch]),
    row(Group::Rbac, "rolebindings", &[Get, List, Watch, Create, Patch]),
];

/// What it needs of objects without a namespace. A namespaced install goes without.
pub const CLUSTER_SCOPED: [Permission; 2] = [
    row(Group::Core, "nodes", &[Get]),
    row(Group::Own, "clusterimagecatalogs", &[Get, List, Watch]),
];

/// The Lease of the election, the own pod and the certificate that agents know, in the operator's
/// namespace. `create` cannot be limited by name.
pub fn own_rules(identity: Identity) -> Vec<Value> {
    let leases = |verbs: &[Verb]| rule(Group::Coordination, "leases", verbs, identity);
    let mut lease = leases(&[Get, Update]);
    lease["resourceNames"] = json!([identity.leader_lease()]);
    let secrets = |verbs: &[Verb]| rule(Group::Core, "secrets", verbs, identity);
    let mut certificate = secrets(&[Get]);
    certificate["resourceNames"] = json!([agents::secret_name(identity)]);
    let pods = rule(Group::Core, "pods", &[Get], identity);
    vec![lease, leases(&[Create]), pods, certificate, secrets(&[Create])]
}

/// The rules of the operator's Role or ClusterRole.
pub fn rules(scope: &Scope, identity: Identity) -> Vec<Value> {
    let cluster_scoped: &[Permission] = match scope {
        Scope::ClusterWide => &CLUSTER_SCOPED,
        Scope::Namespaces(_) => &[],
    };
    let all = SERVED.iter().chain(cluster_scoped);
    all.map(|it| rule(it.group, it.resource, &it.verbs(scope), identity)).collect()
}

impl Permission {
    /// Its verbs where it is installed so, in the order of [`Verb`].
    pub fn verbs(&self, scope: &Scope) -> Vec<Verb> {
        let namespaced: &[Verb] = match scope {
            Scope::ClusterWide => &[],
            Scope::Namespaces(_) => self.namespaced,
        };
        let mut verbs = [self.used, namespaced, self.implied].concat();
        verbs.sort();
        verbs.dedup();
        verbs
    }
}

fn rule(group: Group, resource: &str, verbs: &[Verb], identity: Identity) -> Value {
    let verbs: Vec<&str> = verbs.iter().map(|verb| verb.name()).collect();
    json!({ "apiGroups": [group.name(identity)], "resources": [resource], "verbs": verbs })
}
