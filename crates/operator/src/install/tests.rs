//! What can be said about the objects without an API server.

use std::collections::{BTreeMap, BTreeSet};

use matriarch_api::{Cluster, Identity};
use matriarch_render::setup::Owner;
use matriarch_render::{References, Setup, objects as cluster_objects, resolve};
use serde_json::{Value, json};

use super::permissions::{self, SERVED};
use super::{Options, Scope, objects};

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Verbs by group and resource.
fn verbs(rules: &[Value]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for rule in rules {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let key = (group.clone(), resource);
                found.entry(key).or_default().extend(texts(&rule["verbs"]));
            }
        }
    }
    found
}

/// The Role of a cluster's agents.
fn agents(identity: Identity) -> Vec<Value> {
    let setup = Setup { identity, ..Setup::default() };
    let cluster: Cluster = serde_json::from_value(json!({
        "metadata": { "name": "c", "namespace": "n", "uid": "u" },
        "spec": { "instances": 3, "storage": { "size": "1Gi" } },
    }))
    .unwrap();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let role = cluster_objects::rbac::role(
        &owner,
        &resolve(&owner, &References::default()),
        &["c-1".to_owned()],
    );
    role["rules"].as_array().unwrap().clone()
}

/// The API server lets nobody grant what he does not have.
#[test]
fn the_operator_may_do_what_it_grants_and_implies_nothing_else() {
    for identity in Identity::ALL {
        let granted = verbs(&agents(identity));
        for scope in [Scope::ClusterWide, Scope::Namespaces(vec!["n".to_owned()])] {
            let held = verbs(&permissions::rules(&scope, identity));
            for (key, wanted) in &granted {
                let missing: Vec<_> = wanted.difference(&held[key]).collect();
                assert!(missing.is_empty(), "{key:?} {missing:?}");
            }
        }
        for row in SERVED.iter().filter(|row| row.resource != "clusters/finalizers") {
            let key = (row.group.name(identity).to_owned(), row.resource.to_owned());
            for verb in row.implied {
                let known = granted.get(&key).is_some_and(|verbs| verbs.contains(verb.name()));
                assert!(known, "{key:?}: no agent needs {verb:?}");
                assert!(!row.used.contains(verb), "{key:?}: {verb:?} is used anyway");
            }
        }
    }
}

#[test]
fn nobody_gets_wildcards_or_a_shell_or_all_secrets() {
    let options = Options { admission_policy: true, service_monitor: true, ..Options::default() };
    for object in objects(&options).unwrap() {
        for rule in object["rules"].as_array().into_iter().flatten() {
            let text = rule.to_string();
            assert!(!text.contains("\"*\"") && !text.contains("pods/exec"), "{object:#}");
            if texts(&rule["resources"]).contains(&"secrets".to_owned()) {
                let verbs = texts(&rule["verbs"]);
                assert!(!verbs.iter().any(|verb| verb == "list" || verb == "watch"), "{rule}");
            }
        }
    }
}

#[test]
fn users_get_no_instance() {
    for role in super::user_roles(&Options::default()) {
        assert!(!role["rules"].to_string().contains("instances"), "{role:#}");
    }
}

#[test]
fn the_namespace_of_the_databases_is_not_made_by_us() {
    let made = |scope: Scope| {
        let objects = objects(&Options { scope, ..Options::default() }).unwrap();
        objects.iter().any(|object| object["kind"] == "Namespace")
    };
    assert!(made(Scope::ClusterWide));
    assert!(made(Scope::Namespaces(vec!["team".to_owned()])));
    assert!(!made(Scope::Namespaces(vec!["team".to_owned(), super::NAMESPACE.to_owned()])));
}

/// Two operators of different names in one Kubernetes cluster share no object without a namespace.
#[test]
fn identities_share_no_object_of_the_whole_cluster() {
    let names = |identity: Identity| -> BTreeSet<String> {
        let options = Options { identity, admission_policy: true, ..Options::default() };
        let objects = objects(&options).unwrap();
        let free = objects.iter().filter(|object| {
            object["metadata"]["namespace"].is_null() && object["kind"] != "Namespace"
        });
        free.map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect()
    };
    let (own, other) = (names(Identity::Matriarch), names(Identity::Cnpg));
    assert!(own.len() > 8, "{own:?}");
    assert_eq!(own.intersection(&other).collect::<Vec<_>>(), Vec::<&String>::new());
}
