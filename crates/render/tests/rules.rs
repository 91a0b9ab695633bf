//! What is made from a Cluster, and what is refused.

#[path = "rules/fields.rs"]
mod fields;

use std::collections::{BTreeMap, BTreeSet};

use matriarch_api::Cluster;
use matriarch_api::cluster::ClusterStatus;
use matriarch_api::instance::{DataDurability, InstanceSpec};
use matriarch_plan::action::VolumeRole;
use matriarch_plan::protocol;
use matriarch_plan::report::Activity;
use matriarch_plan::world::Object;
use matriarch_plan::{Action, InstanceName, Plan, Seen, Wanted, plan};
use matriarch_render::setup::Owner;
use matriarch_render::status::{self, Outcome};
use matriarch_render::{
    Objects, References, Resolved, Setup, node_in_question, objects, observe, resolve,
};
use serde_json::{Value, json};

#[expect(
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and json! gives values"
)]
fn cluster(spec: Value) -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "matriarch.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

fn small() -> Cluster {
    cluster(json!({
        "instances": 3,
        "imageName": "ghcr.io/cloudnative-pg/postgresql:17.6",
        "storage": {"size": "1Gi"},
    }))
}

fn nothing_read() -> Objects {
    Objects {
        now_ms: 1_000_000_000_000,
        instances: Ok(Vec::new()),
        pods: Ok(Vec::new()),
        claims: Ok(Vec::new()),
        lease: Seen::Absent,
        lease_unchanged_ms: 0,
        node: None,
        ended: std::collections::BTreeSet::new(),
        stateless: BTreeMap::new(),
        services: BTreeMap::new(),
        references: References::default(),
        secrets: BTreeMap::new(),
    }
}

fn findings(spec: Value) -> Vec<String> {
    let setup = Setup::default();
    let cluster = cluster(spec);
    let resolved = resolve(&Owner { setup: &setup, cluster: &cluster }, &References::default());
    match resolved.wanted {
        Wanted::Valid(_) => Vec::new(),
        Wanted::Invalid { findings } => findings.into_iter().map(|finding| finding.path).collect(),
    }
}

fn template(spec: Value) -> InstanceSpec {
    let setup = Setup::default();
    let cluster = cluster(spec);
    resolve(&Owner { setup: &setup, cluster: &cluster }, &References::default()).template
}

/// Plans for a Cluster of which nothing is there yet.
fn first_plan(cluster: &Cluster) -> (Resolved, Plan, ClusterStatus) {
    let setup = Setup::default();
    let owner = Owner { setup: &setup, cluster };
    let resolved = resolve(&owner, &References::default());
    let world = observe(&owner, &resolved, &nothing_read());
    let planned = plan(&world);
    assert!(matriarch_plan::lint(&world, &planned).is_empty());
    let status = status::render(&owner, &resolved, &world, &planned, &Outcome::default());
    (resolved, planned, status)
}

#[test]
fn a_cluster_of_nothing_is_planned_in_one_pass() {
    let (_, planned, status) = first_plan(&small());
    let pods = planned.stages.iter().flatten();
    assert_eq!(pods.filter(|action| matches!(action, Action::CreatePod { .. })).count(), 3);
    assert_eq!(planned.report.activity, Activity::SettingUpPrimary);
    assert_eq!(status.phase.as_deref(), Some("Setting up primary"));
    let ready = status.conditions.iter().find(|found| found.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "ClusterIsNotReady"));
}

#[test]
fn an_invalid_spec_makes_nothing_and_says_why() {
    let broken = cluster(json!({
        "instances": 3,
        "imageName": "postgres:17",
        "storage": {"size": "1Gi"},
        "bootstrap": {"recovery": {"source": "x"}},
    }));
    let (_, planned, status) = first_plan(&broken);
    assert!(planned.stages.is_empty());
    assert_eq!(status.phase.as_deref(), Some("Invalid cluster definition"));
    let why = status.phase_reason.unwrap();
    assert!(why.contains("spec.bootstrap.recovery"), "{why}");
}

#[test]
fn all_findings_come_at_once_with_their_paths() {
    let found = findings(json!({
        "instances": 2,
        "imageName": "postgres:latest",
        "storage": {},
        "env": [{"name": "PGDATA", "value": "/x"}],
        "postgresql": {"synchronous": {"method": "any", "number": 2}},
        "primaryLease": {"leaseDurationSeconds": 10, "retryPeriodSeconds": 9},
        "resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}},
    }));
    for part in [
        "spec.imageName",
        "spec.storage",
        "spec.env",
        "spec.postgresql.synchronous.number",
        "spec.primaryLease.retryPeriodSeconds",
        "spec.resources.requests.memory",
    ] {
        assert!(found.iter().any(|path| path.starts_with(part)), "{part} not in {found:?}");
    }
}

#[test]
fn synchronous_replication_always_has_slots() {
    let spec = |synchronous: bool| {
        let mut spec = json!({
            "instances": 3,
            "storage": {"size": "1Gi"},
            "replicationSlots": {"highAvailability": {"enabled": false}},
        });
        if synchronous {
            spec["postgresql"] = json!({"synchronous": {"method": "any", "number": 1}});
        }
        spec
    };
    let enabled =
        |synchronous| template(spec(synchronous)).configuration.high_availability_slots.enabled;
    assert!(enabled(true), "a standby without a slot could be counted twice");
    assert!(!enabled(false));
}

#[test]
fn the_older_form_of_synchronous_replication_keeps_its_promise() {
    let base = json!({"instances": 3, "storage": {"size": "1Gi"}});
    let with = |least: i32, most: i32| {
        let mut spec = base.clone();
        spec["minSyncReplicas"] = json!(least);
        spec["maxSyncReplicas"] = json!(most);
        template(spec).configuration.synchronous
    };
    let promised = with(1, 2).unwrap();
    assert_eq!((promised.number, promised.durability), (1, DataDurability::Required));
    let wished = with(0, 2).unwrap();
    assert_eq!((wished.number, wished.durability), (2, DataDurability::Preferred));
    assert_eq!(with(0, 0), None);
}

#[test]
fn the_configuration_hash_follows_the_configuration_and_nothing_else() {
    let base = json!({"instances": 3, "storage": {"size": "1Gi"}});
    let hash = |change: &dyn Fn(&mut Value)| {
        let mut spec = base.clone();
        change(&mut spec);
        template(spec).configuration_hash
    };
    let same = hash(&|_| {});
    assert_eq!(same, hash(&|spec| spec["instances"] = json!(5)));
    let other = hash(&|spec| spec["postgresql"] = json!({"parameters": {"work_mem": "8MB"}}));
    assert_ne!(same, other);
}

#[test]
fn a_pod_is_restricted_and_mounts_no_token_by_itself() {
    let setup = Setup::default();
    let cluster = small();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let pod = objects::pod::new(&owner, &resolved, "c-1", false, &BTreeSet::new());
    let spec = &pod["spec"];
    assert_eq!(spec["automountServiceAccountToken"], json!(false));
    assert_eq!(spec["securityContext"]["runAsNonRoot"], json!(true));
    assert_eq!(spec["securityContext"]["runAsUser"], json!(26));
    for container in [&spec["containers"][0], &spec["initContainers"][0]] {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], json!(false));
        assert_eq!(security["readOnlyRootFilesystem"], json!(true));
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    }
    assert_eq!(spec["containers"][0]["startupProbe"]["periodSeconds"], json!(1));
    let labels = pod["metadata"]["labels"].as_object().unwrap();
    assert!(!labels.contains_key("matriarch.dev/instanceRole"), "the role label has one writer");
    assert!(!labels.contains_key("role"));
}

#[test]
fn a_new_operator_image_restarts_no_database() {
    let cluster = small();
    let stamp = |image: &str| {
        let setup = Setup { operator_image: image.to_owned(), ..Setup::default() };
        let owner = Owner { setup: &setup, cluster: &cluster };
        objects::pod::stamp(&owner, &resolve(&owner, &References::default()))
    };
    assert_eq!(stamp("a:1"), stamp("a:2"));
}

/// Every field of the spec was thought about: does a change of it make another pod?
#[test]
fn every_field_that_shapes_pods_is_compared_and_no_other() {
    const SHAPELESS: &[&str] = &[
        "description",
        "inheritedMetadata",
        // What comes out of these two is compared as `image`.
        "imageName",
        "imageCatalogRef",
        "instances",
        "minSyncReplicas",
        "maxSyncReplicas",
        "postgresql",
        "podSelectorRefs",
        "replicationSlots",
        "bootstrap",
        "replica",
        "superuserSecret",
        "enableSuperuserAccess",
        "certificates",
        "storage",
        "serviceAccountTemplate",
        "smartShutdownTimeout",
        "switchoverDelay",
        "failoverDelay",
        "failover",
        "primaryUpdateStrategy",
        "primaryUpdateMethod",
        "primaryLease",
        "backup",
        "nodeMaintenanceWindow",
        "monitoring",
        "externalClusters",
        "logLevel",
        "managed",
        "enablePDB",
        "plugins",
    ];
    let crd = matriarch_api::crd::json(matriarch_api::identity::Kind::Cluster, Default::default());
    let versions = &crd.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let fields = versions["properties"]["spec"]["properties"].as_object().unwrap().clone();
    let shapes = matriarch_render::stamp::SHAPES;
    for field in fields.keys() {
        let (shapes, not) = (shapes.contains(&&**field), SHAPELESS.contains(&&**field));
        assert!(shapes != not, "{field}: does a change of it make another pod?");
    }
    // What came out of the image fields, and annotations.
    const OTHERS: [&str; 3] = ["image", "podPatch", "coredumpFilter"];
    for field in shapes.iter().filter(|field| !OTHERS.contains(field)) {
        assert!(fields.contains_key(*field), "{field} is no field of the spec");
    }
}

/// A default of the schema stands in every object, whoever wrote it: a new one, or another one, of a
/// field that shapes pods would be taken for the user's wish and restart a fleet.
#[test]
fn fields_that_shape_pods_have_no_other_defaults_than_they_always_had() {
    fn defaults(schema: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
        let Some(fields) = schema.as_object() else { return };
        if let Some(default) = fields.get("default") {
            found.insert(path.to_owned(), default.clone());
        }
        for (name, below) in
            fields.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            defaults(below, &format!("{path}.{name}"), found);
        }
        if let Some(items) = fields.get("items") {
            defaults(items, &format!("{path}[]"), found);
        }
    }
    let crd = matriarch_api::crd::json(matriarch_api::identity::Kind::Cluster, Default::default());
    let schema = &crd.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let fields = &schema["properties"]["spec"]["properties"];
    let mut found = BTreeMap::new();
    for field in matriarch_render::stamp::SHAPES {
        defaults(&fields[field], field, &mut found);
    }
    assert_eq!(found, BTreeMap::from([("startDelay".to_owned(), json!(3600))]));
}

#[test]
fn a_default_of_another_operator_restarts_no_database() {
    let mut cluster = small();
    cluster.spec.image_name = None;
    let first = Setup { postgres_image: "postgres:17".to_owned(), ..Setup::default() };
    // The image is remembered once there is data.
    let owner = Owner { setup: &first, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    assert_eq!(resolved.image, "postgres:17");
    let memory = matriarch_plan::Memory {
        initialized: true,
        members: [(InstanceName("c-1".to_owned()), Default::default())].into(),
        ..Default::default()
    };
    let mut world = observe(&owner, &resolved, &nothing_read());
    world.memory = memory;
    let planned = plan(&world);
    let status = status::render(&owner, &resolved, &world, &planned, &Outcome::default());
    cluster.status = Some(status);
    let second = Setup { postgres_image: "postgres:18".to_owned(), ..Setup::default() };
    let owner = Owner { setup: &second, cluster: &cluster };
    assert_eq!(resolve(&owner, &References::default()).image, "postgres:17");
    cluster.spec.image_name = Some("postgres:17.9".to_owned());
    let owner = Owner { setup: &second, cluster: &cluster };
    assert_eq!(
        resolve(&owner, &References::default()).image,
        "postgres:17.9",
        "what the user says goes before"
    );
}

#[test]
fn a_role_names_what_it_allows_and_no_verb_on_pods_but_get() {
    let setup = Setup::default();
    let cluster = small();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let members = ["c-1".to_owned(), "c-2".to_owned()];
    let role = objects::stateless(&owner, &resolved, Object::Role, &members);
    for rule in role["rules"].as_array().unwrap() {
        let verbs = rule["verbs"].as_array().unwrap();
        let named = rule["resourceNames"].as_array().is_some_and(|names| !names.is_empty());
        assert!(named || verbs == &[json!("create")], "{rule}");
        if rule["resources"] == json!(["pods"]) {
            assert_eq!(rule["verbs"], json!(["get"]));
        }
        if rule["resources"] == json!(["secrets"]) {
            let names = rule["resourceNames"].to_string();
            assert!(!names.contains("c-ca"), "the authority's key is the operator's: {names}");
        }
    }
}

#[test]
fn kept_volumes_have_no_owner() {
    let setup = Setup::default();
    let keep = |policy: &str| {
        let cluster = cluster(json!({
            "instances": 1,
            "storage": {"size": "1Gi", "retainPolicy": policy},
        }));
        let owner = Owner { setup: &setup, cluster: &cluster };
        let resolved = resolve(&owner, &References::default());
        objects::claim::new(&owner, &resolved, "c-1", &VolumeRole::Data)
    };
    assert!(keep("keep")["metadata"].get("ownerReferences").is_none());
    let owned = keep("delete");
    assert_eq!(owned["metadata"]["ownerReferences"][0]["uid"], json!("u"));
    assert_eq!(owned["spec"]["resources"]["requests"]["storage"], json!("1Gi"));
}

#[test]
fn the_rw_service_has_no_selector_and_its_endpoints_are_not_ours() {
    let setup = Setup::default();
    let cluster = small();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let service = objects::stateless(&owner, &resolved, Object::ServiceReadWrite, &[]);
    assert!(service["spec"].get("selector").is_none());
    let slice = objects::stateless(&owner, &resolved, Object::EndpointsReadWrite, &[]);
    assert!(slice.get("endpoints").is_none() && slice.get("ports").is_none());
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], json!("c-rw"));
}

#[test]
fn what_was_made_is_seen_as_it_should_be() {
    let setup = Setup::default();
    let cluster = small();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let (_, planned, _) = first_plan(&cluster);
    let mut read = nothing_read();
    let mut instances = Vec::new();
    let mut pods = Vec::new();
    for action in planned.stages.iter().flatten() {
        match action {
            Action::Direct { instance, directive } => {
                let made =
                    objects::instance::object(&owner, &resolved, instance.as_str(), directive);
                instances.push(serde_json::from_value(made).unwrap());
            }
            Action::CreatePod { instance, wal_volume, tablespaces } => {
                let name = instance.as_str();
                let made = objects::pod::new(&owner, &resolved, name, *wal_volume, tablespaces);
                pods.push(serde_json::from_value(made).unwrap());
            }
            Action::Apply { object } => {
                let members = ["c-1", "c-2", "c-3"].map(str::to_owned);
                let made = objects::stateless(&owner, &resolved, *object, &members);
                read.stateless.insert(*object, Seen::Known(made));
            }
            _ => {}
        }
    }
    read.instances = Ok(instances);
    read.pods = Ok(pods);
    let mut later = cluster.clone();
    let (_, _, status) = first_plan(&cluster);
    later.status = Some(status);
    let owner = Owner { setup: &setup, cluster: &later };
    let world = observe(&owner, &resolved, &read);
    for (object, seen) in &world.objects {
        assert!(seen.known().unwrap().conforms, "{object:?}");
    }
    for (name, instance) in &world.instances {
        assert!(instance.directive.known().unwrap().conforms, "{name}");
        assert!(instance.pod.known().unwrap().conforms, "{name}");
        let (wanted, made) =
            (&resolved.spec().unwrap().pod_stamp, &instance.pod.known().unwrap().stamp);
        assert_eq!(wanted.pod, made.pod);
        assert!(wanted.changed_since(made).is_empty());
        assert!(instance.pod.known().unwrap().brings_own_binary);
    }
    assert_eq!(world.memory, planned.memory);
    assert_eq!(world.memory.bootstrap_primary, Some(InstanceName("c-1".to_owned())));
}

#[test]
fn tablespaces_are_seen_in_volumes_pods_and_reports_and_told_in_the_status() {
    let setup = Setup::default();
    let mut cluster = small();
    cluster.spec.tablespaces = serde_json::from_value(json!([
        {"name": "fast_idx", "storage": {"size": "1Gi"}},
        {"name": "late", "storage": {"size": "1Gi"}, "owner": {"name": "ann"}},
    ]))
    .unwrap();
    let (resolved, planned, status) = first_plan(&cluster);
    let said = |status: &ClusterStatus| {
        let all = status.tablespaces_status.clone().into_iter();
        all.map(|it| (it.owner.unwrap(), it.state.unwrap(), it.error)).collect::<Vec<_>>()
    };
    let pending = |owner: &str, error: Option<&str>| {
        (owner.to_owned(), "pending".to_owned(), error.map(str::to_owned))
    };
    assert_eq!(said(&status), [pending("app", None), pending("ann", None)]);

    cluster.status = Some(status);
    let owner = Owner { setup: &setup, cluster: &cluster };
    let role = VolumeRole::Tablespace("fast_idx".to_owned());
    let claim = objects::claim::new(&owner, &resolved, "c-1", &role);
    let mut pod = objects::pod::new(&owner, &resolved, "c-1", false, &resolved.tablespaces);
    pod["metadata"]["uid"] = json!("u1");
    let directive = planned.stages.iter().flatten().find_map(|action| match action {
        Action::Direct { instance, directive } if instance.as_str() == "c-1" => Some(directive),
        _ => None,
    });
    let mut instance = objects::instance::object(&owner, &resolved, "c-1", directive.unwrap());
    instance["status"] = json!({"podUid": "u1", "role": "primary", "tablespaces": [
        {"name": "fast_idx", "ready": true, "reconciled": true, "owner": "app"},
        {"name": "late", "ready": true, "error": "there is no role ann"},
    ]});
    let lease = |resource: &str| {
        let record = protocol::LeaseRecord::encode(&held_by("u1"));
        let keys = record.annotations.iter();
        let annotations: BTreeMap<String, String> =
            keys.map(|(suffix, value)| (setup.identity.key(suffix), value.clone())).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "c", "resourceVersion": resource, "annotations": annotations},
            "spec": {
                "holderIdentity": "c-1",
                "leaseTransitions": record.transitions,
                "leaseDurationSeconds": record.duration_seconds,
            },
        }))
        .unwrap()
    };
    let read = Objects {
        claims: Ok(vec![serde_json::from_value(claim).unwrap()]),
        pods: Ok(vec![serde_json::from_value(pod).unwrap()]),
        instances: Ok(vec![serde_json::from_value(instance).unwrap()]),
        lease: Seen::Known(lease("7")),
        ..nothing_read()
    };
    let world = observe(&owner, &resolved, &read);
    let seen = &world.instances[&InstanceName("c-1".to_owned())];
    assert!(seen.volume(&role).known().unwrap().conforms);
    assert_eq!(seen.pod.known().unwrap().tablespaces, resolved.tablespaces);
    assert!(seen.report.known().unwrap().tablespaces["late"].ready);
    let status = status::render(&owner, &resolved, &world, &plan(&world), &Outcome::default());
    let done = ("app".to_owned(), "reconciled".to_owned(), None);
    assert_eq!(said(&status), [done, pending("ann", Some("there is no role ann"))]);
}

/// What the API server thinks of tokens whose ServiceAccount is another one by now.
#[test]
fn a_pod_that_is_older_than_its_service_account_is_locked_out() {
    let cluster = small();
    let (setup, references) = (Setup::default(), References::default());
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &references);
    let locked_out = |account: &str| {
        let made = |at: &str| json!({"name": "c", "uid": "a", "creationTimestamp": at});
        let mut pod = objects::pod::new(&owner, &resolved, "c-1", false, &resolved.tablespaces);
        pod["metadata"]["uid"] = json!("p");
        pod["metadata"]["creationTimestamp"] = json!("2026-11-22T17:00:05Z");
        let mut read = nothing_read();
        read.pods = Ok(vec![serde_json::from_value(pod).unwrap()]);
        let account = json!({"metadata": made(account)});
        read.stateless.insert(Object::ServiceAccount, Seen::Known(account));
        let world = observe(&owner, &resolved, &read);
        world.instances[&InstanceName("c-1".to_owned())].pod.known().unwrap().locked_out
    };
    assert!(locked_out("2026-11-22T17:00:06Z"));
    assert!(!locked_out("2026-11-22T17:00:05Z") && !locked_out("2026-11-22T17:00:04Z"));
}

#[test]
fn the_order_of_lists_does_not_matter() {
    let setup = Setup::default();
    let cluster = small();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let pod = |name: &str| {
        serde_json::from_value(objects::pod::new(&owner, &resolved, name, false, &BTreeSet::new()))
    };
    let mut read = nothing_read();
    read.pods = Ok(vec![pod("c-1").unwrap(), pod("c-2").unwrap()]);
    let forward = observe(&owner, &resolved, &read);
    read.pods = Ok(vec![pod("c-2").unwrap(), pod("c-1").unwrap()]);
    assert_eq!(forward, observe(&owner, &resolved, &read));
}

#[test]
fn objects_of_an_earlier_cluster_of_this_name_are_on_their_way_out() {
    let setup = Setup::default();
    let old = small();
    let owner = Owner { setup: &setup, cluster: &old };
    let resolved = resolve(&owner, &References::default());
    let mut read = nothing_read();
    let pod = objects::pod::new(&owner, &resolved, "c-1", false, &BTreeSet::new());
    read.pods = Ok(vec![serde_json::from_value(pod).unwrap()]);
    let mut new = small();
    new.metadata.uid = Some("another".to_owned());
    let owner = Owner { setup: &setup, cluster: &new };
    let world = observe(&owner, &resolved, &read);
    let seen = &world.instances[&InstanceName("c-1".to_owned())];
    assert!(seen.pod.known().unwrap().deleting);
    let planned = plan(&world);
    let disrupts = planned.stages.iter().flatten().any(Action::disrupts);
    assert!(!disrupts);
}

#[test]
fn what_cannot_be_listed_is_unknown_and_nothing_is_made() {
    let setup = Setup::default();
    let cluster = small();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let mut read = nothing_read();
    read.pods = Err("connection refused".to_owned());
    let planned = plan(&observe(&owner, &resolved, &read));
    let makes = planned
        .stages
        .iter()
        .flatten()
        .any(|action| matches!(action, Action::CreatePod { .. } | Action::CreateVolume { .. }));
    assert!(!makes);
}

#[test]
fn the_node_of_an_unready_holder_is_looked_at_and_a_ready_one_is_in_service() {
    let setup = Setup::default();
    let cluster = small();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let pod = |ready: &str| -> k8s_openapi::api::core::v1::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "c-1", "uid": "u1"},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    };
    let record = protocol::LeaseRecord::encode(&held_by("u1"));
    let annotations: BTreeMap<String, String> = record
        .annotations
        .iter()
        .map(|(suffix, value)| (setup.identity.key(suffix), value.clone()))
        .collect();
    let lease = serde_json::from_value(json!({
        "metadata": {"name": "c", "resourceVersion": "7", "annotations": annotations},
        "spec": {
            "holderIdentity": "c-1",
            "leaseTransitions": record.transitions,
            "leaseDurationSeconds": record.duration_seconds,
        },
    }))
    .unwrap();
    let mut objects = Objects { lease: Seen::Known(lease), ..nothing_read() };
    assert_eq!(node_in_question(&owner, &objects), None, "nobody knows where the pod ran");
    objects.pods = Ok(vec![pod("True")]);
    assert_eq!(node_in_question(&owner, &objects), None);
    objects.pods = Ok(vec![pod("False")]);
    assert_eq!(node_in_question(&owner, &objects).as_deref(), Some("n1"));
    for (ready, key, off) in [
        ("Unknown", "node.kubernetes.io/out-of-service", true),
        ("True", "node.kubernetes.io/out-of-service", false),
        ("Unknown", "node.kubernetes.io/unreachable", false),
    ] {
        let node = serde_json::from_value(json!({
            "metadata": {"name": "n1"},
            "spec": {"taints": [{"key": key, "effect": "NoExecute"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap();
        objects.node = Some(("n1".to_owned(), Seen::Known(node)));
        let world = observe(&owner, &resolved, &objects);
        let facts = world.node.unwrap().facts;
        assert_eq!(facts.known().unwrap().out_of_service, off, "{ready} {key}");
    }
}

fn held_by(pod: &str) -> protocol::Lease {
    protocol::Lease {
        holder: Some(protocol::Holder {
            name: "c-1".into(),
            incarnation: "i".into(),
            pod_uid: pod.into(),
            container_id: "k".into(),
        }),
        term: protocol::Term(1),
        duration: protocol::Span::seconds(10),
        system_id: protocol::SystemId(1),
        history: protocol::History::root(protocol::Term(1), "i".into()),
        history_published: true,
        position: protocol::Position::default(),
        cohort: vec![protocol::Member {
            name: "c-1".into(),
            incarnation: "i".into(),
            address: protocol::Address::default(),
        }],
        stragglers: vec![],
        quorum: None,
        release: None,
        quorum_until: None,
        reassertions: 0,
        edition: 1,
    }
}
