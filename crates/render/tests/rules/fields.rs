//! What of the user's fields is in the objects that are made.

use matriarch_api::Cluster;
use matriarch_api::instance::SlotCopies;
use matriarch_plan::action::VolumeRole;
use matriarch_plan::world::{Object, ServicePart};
use matriarch_plan::{Directive, PodStamp, Seen, Wanted};
use matriarch_render::references::CatalogName;
use serde_json::{Value, json};

use matriarch_render::setup::{Owner, Setup};
use matriarch_render::{References, Resolved, objects, resolve};

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn cluster(fields: &Value, status: &Value) -> Cluster {
    let mut spec = json!({
        "instances": 3,
        "imageName": "ghcr.io/cloudnative-pg/postgresql:17.6",
        "storage": {"size": "1Gi"},
    });
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "matriarch.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": "c", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": spec,
        "status": status,
    }))
    .unwrap()
}

fn with<T>(fields: &Value, status: &Value, look: impl Fn(&Owner<'_>, &Resolved) -> T) -> T {
    with_references(fields, status, &References::default(), look)
}

fn with_references<T>(
    fields: &Value,
    status: &Value,
    references: &References,
    look: impl Fn(&Owner<'_>, &Resolved) -> T,
) -> T {
    let (setup, cluster) = (Setup::default(), cluster(fields, status));
    let owner = Owner { setup: &setup, cluster: &cluster };
    look(&owner, &resolve(&owner, references))
}

fn pod(fields: &Value) -> Value {
    with(fields, &json!({}), |owner, resolved| {
        assert_eq!(findings(resolved), Vec::<String>::new());
        assert_eq!(resolved.unsupported, []);
        objects::pod::new(owner, resolved, "c-1", false, &resolved.tablespaces)
    })
}

fn stamp(fields: &Value) -> PodStamp {
    with(fields, &json!({}), objects::pod::stamp)
}

fn findings(resolved: &Resolved) -> Vec<String> {
    match &resolved.wanted {
        Wanted::Valid(_) => Vec::new(),
        Wanted::Invalid { findings } => {
            findings.iter().map(|it| format!("{}: {}", it.path, it.message)).collect()
        }
    }
}

/// A field, a value, and where in a pod which value is to be.
fn fields_in_pods() -> Vec<(&'static str, Value, &'static str, Value)> {
    let limits = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
    let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"a": "b"}}}]);
    let projected = json!({"sources": [{"secret": {"name": "s"}}]});
    let claim = json!({"volumeClaimTemplate": {"spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}});
    let tolerations = json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]);
    let mut table = vec![
        ("imagePullPolicy", json!("Never"), "/containers/0/imagePullPolicy", json!("Never")),
        ("imagePullPolicy", json!("Never"), "/initContainers/0/imagePullPolicy", json!("Never")),
        ("imagePullSecrets", json!([{"name": "s"}]), "/imagePullSecrets", json!([{"name": "s"}])),
        ("schedulerName", json!("mine"), "/schedulerName", json!("mine")),
        ("priorityClassName", json!("high"), "/priorityClassName", json!("high")),
        ("postgresUID", json!(1000), "/securityContext/runAsUser", json!(1000)),
        ("postgresGID", json!(1001), "/securityContext/runAsGroup", json!(1001)),
        ("postgresGID", json!(1001), "/securityContext/fsGroup", json!(1001)),
        ("resources", limits.clone(), "/containers/0/resources", limits.clone()),
        ("resources", limits.clone(), "/initContainers/0/resources", limits),
        ("topologySpreadConstraints", spread.clone(), "/topologySpreadConstraints", spread),
        ("serviceAccountName", json!("mine"), "/serviceAccountName", json!("mine")),
        ("projectedVolumeTemplate", projected.clone(), "/volumes/5/projected", projected),
        ("ephemeralVolumeSource", claim.clone(), "/volumes/1/ephemeral", claim),
        (
            "livenessProbeTimeout",
            json!(60),
            "/containers/0/livenessProbe/failureThreshold",
            json!(6),
        ),
    ];
    for (field, place) in [("shm", "/volumes/2/emptyDir"), ("temporaryData", "/volumes/1/emptyDir")]
    {
        let mut wanted = json!({"sizeLimit": "256Mi"});
        if field == "shm" {
            wanted["medium"] = json!("Memory");
        }
        table.push(("ephemeralVolumesSizeLimit", json!({field: "256Mi"}), place, wanted));
    }
    let local = json!({"type": "Localhost", "localhostProfile": "p.json"});
    table.push(("seccompProfile", local.clone(), "/securityContext/seccompProfile", local));
    let selector = json!({"kubernetes.io/arch": "arm64"});
    table.push(("affinity", json!({"nodeSelector": selector}), "/nodeSelector", selector));
    table.push(("affinity", json!({"tolerations": tolerations}), "/tolerations", tolerations));
    table
}

#[test]
fn a_field_about_pods_is_in_pods_and_its_change_makes_new_ones() {
    let plain = stamp(&json!({}));
    for (field, value, place, wanted) in fields_in_pods() {
        let fields = json!({field: value});
        let made = pod(&fields);
        assert_eq!(made["spec"].pointer(place), Some(&wanted), "{field} at {place}");
        assert_ne!(stamp(&fields), plain, "a change of {field} makes no new pods");
    }
    let mounts = pod(&json!({"projectedVolumeTemplate": {"sources": []}}));
    let mounts = mounts["spec"]["containers"][0]["volumeMounts"].as_array().unwrap().clone();
    assert!(mounts.iter().any(|mount| mount["mountPath"] == "/projected"), "{mounts:?}");
}

#[test]
fn a_change_that_pods_do_not_show_makes_no_new_ones() {
    let plain = stamp(&json!({}));
    for fields in [
        json!({"instances": 5}),
        json!({"enablePDB": false}),
        json!({"description": "mine"}),
        json!({"serviceAccountTemplate": {"metadata": {"annotations": {"a": "b"}}}}),
        json!({"postgresql": {"parameters": {"work_mem": "8MB"}}}),
        json!({"primaryUpdateMethod": "restart"}),
    ] {
        assert_eq!(stamp(&fields), plain, "{fields}");
    }
}

#[test]
fn instances_keep_apart_as_the_user_says() {
    let affinity = |fields: Value| pod(&json!({"affinity": fields}))["spec"]["affinity"].clone();
    let term = json!({
        "labelSelector": {"matchLabels": {"matriarch.dev/cluster": "c", "matriarch.dev/podRole": "instance"}},
        "topologyKey": "kubernetes.io/hostname",
    });
    let preferred = json!([{"weight": 100, "podAffinityTerm": term}]);
    let should = "preferredDuringSchedulingIgnoredDuringExecution";
    let must = "requiredDuringSchedulingIgnoredDuringExecution";
    assert_eq!(affinity(json!({})), json!({"podAntiAffinity": {should: preferred}}));
    assert_eq!(affinity(json!({"enablePodAntiAffinity": false})), json!({}));
    let mut zone = term.clone();
    zone["topologyKey"] = json!("zone");
    assert_eq!(
        affinity(json!({"podAntiAffinityType": "required", "topologyKey": "zone"})),
        json!({"podAntiAffinity": {must: [zone]}})
    );
    let other = json!({"labelSelector": {"matchLabels": {"app": "noisy"}}, "topologyKey": "rack"});
    assert_eq!(
        affinity(json!({
            "podAntiAffinityType": "required",
            "additionalPodAntiAffinity": {must: [other]},
            "additionalPodAffinity": {must: [other]},
            "nodeAffinity": {must: {"nodeSelectorTerms": []}},
        })),
        json!({
            "podAntiAffinity": {must: [other, term]},
            "podAffinity": {must: [other]},
            "nodeAffinity": {must: {"nodeSelectorTerms": []}},
        })
    );
}

#[test]
fn fields_of_security_contexts_go_over_ours_one_by_one() {
    let made = pod(&json!({
        "podSecurityContext": {"fsGroup": 7, "seccompProfile": {"type": "Unconfined"}},
        "securityContext": {"readOnlyRootFilesystem": false, "capabilities": {"add": ["X"]}},
    }));
    let pod = &made["spec"]["securityContext"];
    assert_eq!((&pod["fsGroup"], &pod["runAsNonRoot"]), (&json!(7), &json!(true)));
    assert_eq!(pod["seccompProfile"], json!({"type": "Unconfined"}));
    for container in ["containers", "initContainers"] {
        let context = &made["spec"][container][0]["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], json!(false));
        assert_eq!(context["allowPrivilegeEscalation"], json!(false));
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["X"]}));
    }
}

#[test]
fn the_passwd_file_names_the_user_that_runs() {
    let line = |fields: Value| {
        let map = with(&fields, &json!({}), |owner, resolved| {
            objects::stateless(owner, resolved, Object::Passwd, &[])
        });
        let text = map["data"]["passwd"].as_str().unwrap().to_owned();
        text.lines().find(|line| line.starts_with("postgres:")).unwrap().to_owned()
    };
    assert!(line(json!({})).starts_with("postgres:x:26:26:"));
    assert!(line(json!({"imageName": "postgres:17"})).starts_with("postgres:x:999:999:"));
    let written = json!({"postgresUID": 1000, "postgresGID": 1001});
    assert!(line(written).starts_with("postgres:x:1000:1001:"));
    let over = json!({"postgresUID": 1000, "podSecurityContext": {"runAsUser": 70}});
    assert!(line(over).starts_with("postgres:x:70:26:"));
}

#[test]
fn the_official_image_is_told_by_its_name_and_all_others_are_cloudnativepg_s() {
    let uid = |image: &str| with(&json!({"imageName": image}), &json!({}), |_, it| it.uid);
    for image in [
        "postgres:17",
        "docker.io/library/postgres:17.6",
        "localhost:5000/library/postgres:17@sha256:00",
    ] {
        assert_eq!(uid(image), 999, "{image}");
    }
    for image in [
        "ghcr.io/cloudnative-pg/postgresql:17.6",
        "localhost:5000/cloudnative-pg/postgresql:17",
        "registry.example/team/postgis:17-3.5",
        "my-postgres:17",
    ] {
        assert_eq!(uid(image), 26, "{image}");
    }
    // A registry's port is no tag.
    let said = |image: &str| with(&json!({"imageName": image}), &json!({}), |_, it| findings(it));
    assert_eq!(said("localhost:5000/postgres:17.6"), Vec::<String>::new());
    assert!(said("localhost:5000/postgres")[0].contains("does not begin with"));
}

#[test]
fn the_user_of_the_data_stays() {
    let status = json!({
        "pgDataImageInfo": {"image": "postgres:17", "majorVersion": 17},
        "effective": {"postgresUID": 999, "postgresGID": 999},
    });
    let ids = |fields: Value| {
        with(&fields, &status, |_, resolved| (resolved.uid, resolved.gid, findings(resolved)))
    };
    let mirrored = ids(json!({"imageName": "registry.example/pg/postgres:17"}));
    assert_eq!(mirrored, (999, 999, Vec::new()));
    let (uid, _, said) = ids(json!({"podSecurityContext": {"runAsUser": 26}}));
    assert_eq!(uid, 999);
    assert!(
        said[0].starts_with("spec.podSecurityContext.runAsUser: the data belongs to user id 999"),
        "{said:?}"
    );
    assert_eq!(ids(json!({"podSecurityContext": {"runAsGroup": 26}})), (999, 26, Vec::new()));
    let root = with(&json!({"postgresUID": 0}), &json!({}), |_, resolved| findings(resolved));
    assert!(root[0].starts_with("spec.postgresUID: PostgreSQL does not run as root"), "{root:?}");
}

#[test]
fn another_major_version_is_refused_with_the_reason() {
    let status = json!({"pgDataImageInfo": {"image": "postgres:17.5", "majorVersion": 17}});
    let said =
        |image: &str| with(&json!({"imageName": image}), &status, |_, resolved| findings(resolved));
    assert_eq!(said("postgres:17.6"), Vec::<String>::new());
    let refused = said("postgres:18.1");
    assert!(refused[0].contains("the data is of PostgreSQL 17"), "{refused:?}");
}

#[test]
fn a_service_account_has_what_its_template_says_and_keeps_our_labels() {
    let account = with(
        &json!({"serviceAccountTemplate": {"metadata": {
            "annotations": {"eks.amazonaws.com/role-arn": "r"},
            "labels": {"team": "a", "matriarch.dev/cluster": "other"},
        }}}),
        &json!({}),
        |owner, resolved| objects::stateless(owner, resolved, Object::ServiceAccount, &[]),
    );
    let metadata = &account["metadata"];
    assert_eq!(metadata["annotations"]["eks.amazonaws.com/role-arn"], json!("r"));
    assert_eq!(metadata["labels"]["team"], json!("a"));
    assert_eq!(metadata["labels"]["matriarch.dev/cluster"], json!("c"));
}

#[test]
fn a_given_service_account_is_bound_and_not_made() {
    with(&json!({"serviceAccountName": "mine"}), &json!({}), |owner, resolved| {
        let spec = resolved.spec().unwrap();
        assert!(!spec.objects.contains(&Object::ServiceAccount));
        let binding = objects::stateless(owner, resolved, Object::RoleBinding, &[]);
        assert_eq!(binding["subjects"][0]["name"], json!("mine"));
    });
}

#[test]
fn a_disruption_budget_is_made_unless_refused() {
    let made = |fields: Value| {
        with(&fields, &json!({}), |_, resolved| {
            resolved.spec().unwrap().objects.contains(&Object::DisruptionBudget)
        })
    };
    assert!(made(json!({})) && made(json!({"enablePDB": true})));
    assert!(!made(json!({"enablePDB": false})));
    let window = |reuse: bool| json!({"inProgress": true, "reusePVC": reuse});
    // Nodes that come back are emptied at once; elsewhere copies are made one at a time.
    assert!(!made(json!({"nodeMaintenanceWindow": window(true)})));
    assert!(!made(json!({"nodeMaintenanceWindow": {"inProgress": true}})));
    assert!(made(json!({"nodeMaintenanceWindow": window(false)})));
    assert!(made(json!({"nodeMaintenanceWindow": {"reusePVC": true}})));
}

/// The pod of a cluster with an annotation of ours, its stamp, and what was found wrong.
fn annotated(name: &str, value: &str) -> (Value, PodStamp, Vec<String>) {
    let (setup, mut cluster) = (Setup::default(), cluster(&json!({}), &json!({})));
    let annotations = cluster.metadata.annotations.get_or_insert_default();
    annotations.insert(format!("matriarch.dev/{name}"), value.to_owned());
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let pod = objects::pod::new(&owner, &resolved, "c-1", false, &resolved.tablespaces);
    (pod, objects::pod::stamp(&owner, &resolved), findings(&resolved))
}

#[test]
fn a_patch_is_on_each_pod_and_its_change_makes_new_ones() {
    let add = r#"[{"op": "add", "path": "/spec/containers/0/env/-",
        "value": {"name": "TZ", "value": "UTC"}}]"#;
    let (pod, patched, found) = annotated("podPatch", add);
    assert_eq!(found, Vec::<String>::new());
    let environment = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    assert_eq!(environment.last(), Some(&json!({"name": "TZ", "value": "UTC"})));
    assert_eq!(patched.changed_since(&stamp(&json!({}))), ["podPatch"]);

    let add = r#"[{"op": "add", "path": "/metadata/annotations/team", "value": "orders"}]"#;
    let (pod, _, found) = annotated("podPatch", add);
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(pod["metadata"]["annotations"]["team"], "orders");
}

#[test]
fn a_patch_that_makes_no_pod_of_ours_is_refused_with_the_reason() {
    for (patch, why) in [
        ("{}", "no JSON Patch"),
        (r#"[{"op": "remove", "path": "/spec/nothing"}]"#, "cannot be applied"),
        (r#"[{"op": "replace", "path": "/metadata/name", "value": "x"}]"#, "/metadata/name"),
        (r#"[{"op": "remove", "path": "/metadata/labels"}]"#, "labels"),
        // What the pod was made from would be unknown, and the pod made anew for ever.
        (r#"[{"op": "remove", "path": "/metadata/annotations"}]"#, "annotations"),
        (r#"[{"op": "replace", "path": "/spec/containers/0/name", "value": "x"}]"#, "container"),
    ] {
        let (_, _, found) = annotated("podPatch", patch);
        let [only] = found.as_slice() else { panic!("{patch}: {found:?}") };
        assert!(only.contains(why) && only.contains("matriarch.dev/podPatch"), "{only}");
    }
}

#[test]
fn the_filter_of_core_dumps_goes_to_the_keeper() {
    let (pod, with_filter, found) = annotated("coredumpFilter", "0x33");
    assert_eq!(found, Vec::<String>::new());
    let environment = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    assert!(environment.contains(&json!({"name": "MATRIARCH_COREDUMP_FILTER", "value": "0x33"})));
    assert_eq!(with_filter.changed_since(&stamp(&json!({}))), ["coredumpFilter"]);
    assert_eq!(annotated("coredumpFilter", "all").2.len(), 1);
}

#[test]
fn pods_and_nodes_are_treated_as_the_user_says() {
    let spec = |fields: Value| {
        with(&fields, &json!({}), |_, resolved| resolved.spec().unwrap().replaces_stranded)
    };
    assert!(spec(json!({"nodeMaintenanceWindow": {"inProgress": true, "reusePVC": false}})));
    assert!(!spec(json!({"nodeMaintenanceWindow": {"inProgress": true}})));
    let keeps = |value: &str| {
        let (setup, mut cluster) = (Setup::default(), cluster(&json!({}), &json!({})));
        let annotations = cluster.metadata.annotations.get_or_insert_default();
        annotations.insert("matriarch.dev/reconcilePodSpec".to_owned(), value.to_owned());
        let owner = Owner { setup: &setup, cluster: &cluster };
        resolve(&owner, &References::default()).spec().unwrap().keeps_pods
    };
    assert!(keeps("disabled") && !keeps("enabled"));
}

fn catalog(seen: Seen<Value>) -> References {
    let name = CatalogName { cluster_wide: false, name: "i".to_owned() };
    let seen = seen.map(|spec| serde_json::from_value(spec).unwrap_or_default());
    References { catalog: Some((name, seen)), ..References::default() }
}

/// Image, findings, and what is wrong with the catalog.
fn by_catalog(seen: Seen<Value>, status: &Value) -> (String, Vec<String>, Option<String>) {
    let fields = json!({
        "imageName": null,
        "imageCatalogRef": {"kind": "ImageCatalog", "name": "i", "major": 17},
    });
    with_references(&fields, status, &catalog(seen), |_, resolved| {
        let problem = resolved.image_problem.as_ref().map(|it| it.message.clone());
        (resolved.image.clone(), findings(resolved), problem)
    })
}

#[test]
fn a_catalog_gives_the_image_of_the_major_version() {
    // A digest alone is enough: the catalog says which major version it is.
    let images =
        json!({"images": [{"major": 17, "image": "r/p@sha256:0a"}, {"major": 18, "image": "x"}]});
    let (image, said, problem) = by_catalog(Seen::Known(images), &json!({}));
    assert_eq!((image.as_str(), said, problem), ("r/p@sha256:0a", Vec::new(), None));
}

#[test]
fn a_catalog_without_the_image_makes_nothing_new_and_stops_nothing() {
    let status = json!({"pgDataImageInfo": {"image": "postgres:17.5", "majorVersion": 17}});
    let unreadable = Seen::Unknown { why: "forbidden".to_owned() };
    for (seen, words) in [
        (Seen::Absent, "ImageCatalog/i is not there"),
        (Seen::Known(json!({"images": []})), "ImageCatalog/i has no image of PostgreSQL 17"),
        (unreadable, "ImageCatalog/i cannot be read: forbidden"),
    ] {
        let (_, said, problem) = by_catalog(seen.clone(), &json!({}));
        assert!(said[0].starts_with(&format!("spec.imageCatalogRef: {words}")), "{said:?}");
        assert!(problem.is_some_and(|problem| problem.contains(words)));
        let (image, said, problem) = by_catalog(seen, &status);
        assert_eq!((image.as_str(), said), ("postgres:17.5", Vec::new()));
        assert!(problem.is_some_and(|problem| problem.contains("postgres:17.5 goes on")));
    }
}

#[test]
fn a_catalog_s_other_major_version_is_refused() {
    let status = json!({"pgDataImageInfo": {"image": "postgres:16", "majorVersion": 16}});
    let images = json!({"images": [{"major": 17, "image": "postgres:17"}]});
    let (_, said, _) = by_catalog(Seen::Known(images), &status);
    assert!(said[0].starts_with("spec.imageCatalogRef.major:"), "{said:?}");
}

#[test]
fn without_a_word_the_image_of_the_first_instance_stays() {
    let status = json!({"pgDataImageInfo": {"image": "postgres:17.5", "majorVersion": 17}});
    let image = |status: &Value| {
        with(&json!({"imageName": null}), status, |_, resolved| resolved.image.clone())
    };
    assert_eq!(image(&status), "postgres:17.5");
    assert_eq!(image(&json!({})), Setup::default().postgres_image);
}

fn service(additional: &Value, name: &str, part: ServicePart) -> Option<Value> {
    let fields = json!({"managed": {"services": {"additional": [additional]}}});
    with(&fields, &json!({}), |owner, resolved| {
        assert_eq!(findings(resolved), Vec::<String>::new());
        objects::managed_service(owner, name, part)
    })
}

#[test]
fn a_service_of_the_user_s_leads_where_it_says() {
    let of = |kind: &str| {
        let template = json!({
            "metadata": {"name": "mine", "labels": {"team": "a", "matriarch.dev/cluster": "x"}},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "internal"},
        });
        json!({"selectorType": kind, "serviceTemplate": template})
    };
    for (kind, role) in [("r", None), ("ro", Some("replica"))] {
        let made = service(&of(kind), "mine", ServicePart::Service).unwrap();
        let selector = &made["spec"]["selector"];
        assert_eq!(selector["matriarch.dev/cluster"], json!("c"), "{kind}");
        assert_eq!(selector.get("matriarch.dev/instanceRole"), role.map(|it| json!(it)).as_ref());
        assert_eq!(service(&of(kind), "mine", ServicePart::Endpoints), None, "{kind}");
    }
    let made = service(&of("rw"), "mine", ServicePart::Service).unwrap();
    assert_eq!(made["spec"].get("selector"), None);
    assert_eq!(made["spec"]["loadBalancerClass"], json!("internal"));
    assert_eq!(made["spec"]["ports"][0]["port"], json!(5432));
    let labels = &made["metadata"]["labels"];
    assert_eq!((&labels["team"], &labels["matriarch.dev/cluster"]), (&json!("a"), &json!("c")));
    assert_eq!(labels["matriarch.dev/isManaged"], json!("true"));
    let slice = service(&of("rw"), "mine", ServicePart::Endpoints).unwrap();
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], json!("mine"));
    assert!(slice.get("endpoints").is_none() && slice.get("ports").is_none());
}

#[test]
fn the_holder_is_told_of_services_that_lead_to_it_and_may_write_them() {
    let ports = json!([
        {"name": "sql", "port": 6000, "targetPort": "postgresql"},
        {"name": "metrics", "port": 9187},
    ]);
    let fields = json!({"managed": {"services": {"additional": [
        {"selectorType": "rw", "serviceTemplate": {"metadata": {"name": "lb"}, "spec": {"ports": ports}}},
        {"selectorType": "ro", "serviceTemplate": {"metadata": {"name": "readers"}}},
    ]}}});
    with(&fields, &json!({}), |owner, resolved| {
        assert_eq!(
            json!(resolved.template.additional_endpoints),
            json!([{"name": "lb", "ports": [
                {"name": "sql", "port": 5432, "protocol": "TCP"},
                {"name": "metrics", "port": 9187, "protocol": "TCP"},
            ]}])
        );
        let role = objects::stateless(owner, resolved, Object::Role, &[]);
        let rules = role["rules"].as_array().unwrap();
        let slices = rules.iter().find(|rule| rule["resources"] == json!(["endpointslices"]));
        assert_eq!(slices.unwrap()["resourceNames"], json!(["c-rw", "lb"]));
    });
    assert_eq!(stamp(&fields), stamp(&json!({})), "a Service needs no new pods");
}

#[test]
fn a_changed_template_is_seen_and_what_others_fill_in_is_not() {
    let template = |annotation: &str| {
        let metadata = json!({"name": "lb", "annotations": {"a": annotation}});
        json!({"selectorType": "rw", "serviceTemplate": {"metadata": metadata}})
    };
    let made = |it: &str| service(&template(it), "lb", ServicePart::Service).unwrap();
    let mut live = made("1");
    live["spec"]["clusterIP"] = json!("10.96.0.7");
    live["spec"]["ports"][0]["nodePort"] = json!(30_000);
    assert!(objects::service::managed_conforms(&made("1"), &live));
    assert!(!objects::service::managed_conforms(&made("2"), &live));
    live["spec"]["selector"] = json!({"app": "another"});
    assert!(objects::service::managed_conforms(&made("1"), &live), "rw says nothing of selectors");
}

#[test]
fn services_that_cannot_be_are_refused_with_their_paths() {
    let said = |services: Value| {
        with(&json!({"managed": {"services": services}}), &json!({}), |_, it| findings(it))
    };
    let of = |template: Value| json!({"selectorType": "rw", "serviceTemplate": template});
    let named = |name: &str| of(json!({"metadata": {"name": name}}));
    let twice = said(json!({"additional": [named("a"), named("a")]}));
    assert!(twice[0].contains("additional[1]") && twice[0].contains("choose another name"));
    assert!(said(json!({"additional": [named("c-rw")]}))[0].contains("choose another name"));
    assert!(said(json!({"additional": [of(json!({}))]}))[0].contains("needs a name"));
    let spec =
        json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1, "targetPort": "x"}]}});
    assert!(said(json!({"additional": [of(spec)]}))[0].contains("no port of a pod"));
    let spec = json!({"metadata": {"name": "a"}, "spec": {"selector": {"a": "b"}}});
    assert!(said(json!({"additional": [of(spec)]}))[0].contains("remove the selector"));
}

#[test]
fn disabled_services_are_not_made() {
    let fields = json!({"managed": {"services": {"disabledDefaultServices": ["r", "ro"]}}});
    with(&fields, &json!({}), |_, resolved| {
        let objects = &resolved.spec().unwrap().objects;
        assert!(!objects.contains(&Object::ServiceRead));
        assert!(!objects.contains(&Object::ServiceReadOnly));
        assert!(objects.contains(&Object::ServiceReadWrite));
    });
}

#[test]
fn pods_in_pg_hba_become_their_addresses_and_restart_nothing() {
    let fields = json!({
        "podSelectorRefs": [
            {"name": "app", "selector": {"matchLabels": {"app": "a"}}},
            {"name": "none", "selector": {"matchLabels": {"app": "b"}}},
        ],
        "postgresql": {"pg_hba": [
            "hostssl app app ${podselector:app} scram-sha-256",
            "hostssl app app ${podselector:none} scram-sha-256",
            "hostssl all all 10.0.0.0/8 reject",
        ]},
    });
    let read = |ips: &[&str]| {
        let ips = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        let pods = [("app".to_owned(), Seen::Known(ips)), ("none".to_owned(), Seen::Known(vec![]))];
        References { pods: pods.into(), ..References::default() }
    };
    let lines = |references: &References, status: &Value| {
        with_references(&fields, status, references, |owner, resolved| {
            assert_eq!(findings(resolved), Vec::<String>::new());
            let stamp = objects::pod::stamp(owner, resolved);
            let template = &resolved.template;
            (template.configuration.pg_hba.clone(), template.configuration_hash.clone(), stamp)
        })
    };
    let (both, hash, stamp) = lines(&read(&["fd00::7", "10.1.1.1", "10.1.1.1"]), &json!({}));
    assert_eq!(
        both,
        [
            "hostssl app app 10.1.1.1/32 scram-sha-256",
            "hostssl app app fd00::7/128 scram-sha-256",
            "hostssl all all 10.0.0.0/8 reject",
        ]
    );
    let (one, other_hash, same_stamp) = lines(&read(&["10.1.1.1"]), &json!({}));
    assert_eq!(one.len(), 2);
    assert_ne!(hash, other_hash, "PostgreSQL is to load the new rules");
    assert_eq!(stamp, same_stamp);
    // What cannot be read now is as it was.
    let status = json!({"podSelectorRefs": [{"name": "app", "ips": ["10.1.1.9"]}]});
    let (last, _, _) = lines(&References::default(), &status);
    assert_eq!(last[0], "hostssl app app 10.1.1.9/32 scram-sha-256");
}

#[test]
fn a_line_that_names_pods_names_an_entry() {
    let said = |line: &str, file: &str| {
        let fields = json!({
            "podSelectorRefs": [{"name": "app", "selector": {}}], "postgresql": {file: [line]},
        });
        with(&fields, &json!({}), |_, resolved| findings(resolved))
    };
    let right = "hostssl all all ${podselector:app} scram-sha-256";
    assert_eq!(said(right, "pg_hba"), Vec::<String>::new());
    assert!(said("hostssl all all ${podselector:b} reject", "pg_hba")[0].contains("called \"b\""));
    assert!(said("hostssl all all ${podselector:app reject", "pg_hba")[0].contains("brace"));
    assert!(said("local ${podselector:app} x", "pg_ident")[0].contains("pg_hba only"));
}

#[test]
fn ldap_goes_to_the_agents_which_may_read_the_password() {
    let search = json!({
        "baseDN": "dc=x", "bindDN": "cn=pg", "searchAttribute": "uid",
        "bindPassword": {"name": "ldap", "key": "password"},
    });
    let fields = |ldap: Value| json!({"postgresql": {"ldap": ldap}});
    let right = json!({"server": "ldap.example", "bindSearchAuth": search});
    with(&fields(right), &json!({}), |_, resolved| {
        assert_eq!(findings(resolved), Vec::<String>::new());
        let ldap = resolved.template.configuration.ldap.as_ref().unwrap();
        assert_eq!(ldap.server.as_deref(), Some("ldap.example"));
        assert!(resolved.agent_secrets().contains(&"ldap".to_owned()));
    });
    let said = |ldap: Value| with(&fields(ldap), &json!({}), |_, it| findings(it));
    assert!(said(json!({"server": "a"}))[0].contains("bindAsAuth and bindSearchAuth"));
    assert!(said(json!({"bindAsAuth": {}}))[0].contains("ldap.server"));
    let broken = json!({"server": "a", "bindAsAuth": {"prefix": "a\nlocal all all trust"}});
    assert!(said(broken)[0].contains("line break"));
    let both =
        json!({"baseDN": "dc=x", "searchAttribute": "uid", "searchFilter": "(uid=$username)"});
    assert!(
        said(json!({"server": "a", "bindSearchAuth": both}))[0].contains("leave one of the two")
    );
}

#[test]
fn users_slots_are_copied_unless_the_user_says_otherwise() {
    let copies = |slots: Value| {
        with(&json!({ "replicationSlots": slots }), &json!({}), |_, resolved| {
            assert_eq!(resolved.unsupported, []);
            (resolved.template.slot_copies.clone(), findings(resolved))
        })
    };
    let wish = |enabled: bool, patterns: &[&str]| {
        let exclude_patterns = patterns.iter().map(|&it| it.to_owned()).collect();
        Some(SlotCopies { enabled, exclude_patterns })
    };
    assert_eq!(copies(json!({})), (wish(true, &[]), Vec::new()));
    let excluded = json!({"synchronizeReplicas": {"excludePatterns": ["^tmp"]}});
    assert_eq!(copies(excluded), (wish(true, &["^tmp"]), Vec::new()));
    let off = json!({"synchronizeReplicas": {"enabled": false}});
    assert_eq!(copies(off), (wish(false, &[]), Vec::new()));
    let (_, refused) = copies(json!({"synchronizeReplicas": {"excludePatterns": ["a", "(b"]}}));
    let path = "spec.replicationSlots.synchronizeReplicas.excludePatterns[1]";
    let why = "\"(b\" is no regular expression: unclosed group";
    assert_eq!(refused, [format!("{path}: {why}")]);
}

#[test]
fn what_blocks_is_named_among_the_fields_without_effect() {
    let fields =
        json!({"backup": {"retentionPolicy": "7d"}, "monitoring": {"enablePodMonitor": true}});
    with(&fields, &json!({}), |_, resolved| {
        let named: Vec<&str> = resolved.unsupported.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(named, ["spec.backup", "spec.monitoring"]);
        assert!(resolved.blocked);
        assert_eq!(
            findings(resolved),
            ["spec.backup: no backup would be taken and no WAL archived"]
        );
    });
}

fn with_tablespaces() -> Value {
    json!({ "tablespaces": [
        {"name": "fast_idx", "storage": {"size": "2Gi", "storageClass": "ssd"}},
        {"name": "scratch", "storage": {"size": "1Gi"}, "owner": {"name": "ann"}, "temporary": true},
    ] })
}

#[test]
fn a_tablespace_has_a_volume_at_its_place_in_every_pod() {
    let pod = pod(&with_tablespaces());
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    let place =
        |name: &str| mounts.iter().find(|it| it["name"] == name).unwrap()["mountPath"].clone();
    assert_eq!(place("tbs-fast-idx"), "/var/lib/postgresql/tablespaces/fast_idx");
    assert_eq!(place("tbs-scratch"), "/var/lib/postgresql/tablespaces/scratch");
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|it| it["name"] == "tbs-fast-idx").unwrap();
    assert_eq!(volume["persistentVolumeClaim"]["claimName"], "c-1-tbs-fast-idx");

    let role = VolumeRole::Tablespace("fast_idx".to_owned());
    let claim = with(&with_tablespaces(), &json!({}), |owner, resolved| {
        objects::claim::new(owner, resolved, "c-1", &role)
    });
    assert_eq!(claim["metadata"]["name"], "c-1-tbs-fast-idx");
    let labels = &claim["metadata"]["labels"];
    assert_eq!(labels["matriarch.dev/pvcRole"], "PG_TABLESPACE");
    assert_eq!(labels["matriarch.dev/tablespaceName"], "fast_idx");
    assert_eq!(labels["matriarch.dev/instanceName"], "c-1");
    assert_eq!(claim["spec"]["storageClassName"], "ssd");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi");
}

#[test]
fn agents_are_told_of_tablespaces_and_who_owns_them() {
    with(&with_tablespaces(), &json!({}), |owner, resolved| {
        let spec = resolved.spec().unwrap();
        let names = ["fast_idx", "scratch"].map(str::to_owned);
        assert_eq!(spec.tablespaces, names.clone().into());
        let grown = spec.grown_to.get(&VolumeRole::Tablespace("fast_idx".to_owned()));
        assert_eq!(grown, Some(&(2 << 30)));
        assert_eq!(resolved.template.configuration.temporary_tablespaces, ["scratch"]);
        let told = |tablespaces: &[&str]| {
            let tablespaces = tablespaces.iter().map(|&it| it.to_owned()).collect();
            let directive = Directive { tablespaces, ..Directive::default() };
            let spec = objects::instance::spec(owner, resolved, "c-1", &directive);
            assert_eq!(objects::instance::directive(&spec), directive);
            spec.tablespaces.into_iter().map(|it| (it.owner, it.create)).collect::<Vec<_>>()
        };
        let (app, ann) = ("app".to_owned(), "ann".to_owned());
        assert_eq!(told(&[]), [(app.clone(), false), (ann.clone(), false)]);
        assert_eq!(told(&["scratch"]), [(app, false), (ann, true)]);
    });
}

/// A change of size or owner is none of pods, also where another operator renders them.
#[test]
fn only_another_tablespace_makes_another_pod() {
    let before = stamp(&with_tablespaces());
    let mut fields = with_tablespaces();
    fields["tablespaces"][0]["storage"]["size"] = json!("5Gi");
    fields["tablespaces"][1]["owner"]["name"] = json!("bob");
    fields["tablespaces"][1]["temporary"] = json!(false);
    assert_eq!(stamp(&fields), before);
    let more = json!({"name": "more", "storage": {"size": "1Gi"}});
    fields["tablespaces"].as_array_mut().unwrap().push(more);
    assert_eq!(stamp(&fields).changed_since(&before), ["tablespaces"]);
}
