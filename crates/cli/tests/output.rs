//! What the verbs print, from objects as an API server gives them.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::path::Path;

use jiff::Timestamp;
use matriarch_api::annotations::Fenced;
use matriarch_api::statistics::Statistics;
use matriarch_api::{Cluster, Identity, Instance};
use matriarch_cli::error::{Error, known};
use matriarch_cli::fencing::{self, Switch};
use matriarch_cli::observed::{Observed, Part};
use matriarch_cli::plan::{Foreseen, file};
use matriarch_cli::promote::{self, Decision};
use matriarch_cli::{explain, logs, plan, restart, status, text};
use matriarch_plan::Seen;
use matriarch_plan::protocol::{
    Address, History, Holder, Lease, Lsn, Member, Position, Quorum, Span, SystemId, Term,
};
use matriarch_render::setup::{Owner, Setup};
use matriarch_render::{Objects, References, observe, resolve};
use serde_json::{Value, json};

const NOW: &str = "2026-11-21T04:40:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn cluster() -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "matriarch.dev/v1",
        "kind": "Cluster",
        "metadata": {
            "name": "c", "namespace": "shop", "generation": 3, "uid": "u", "resourceVersion": "9",
            "annotations": {"matriarch.dev/fencedInstances": "[\"c-3\"]"},
        },
        "spec": {"instances": 3, "storage": {"size": "1Gi"}},
        "status": {
            "observedGeneration": 3,
            "phase": "Waiting for the instances to become active",
            "phaseReason": "Fenced by the user: c-3",
            "systemID": "7412345678901234567",
            "image": "ghcr.io/cloudnative-pg/postgresql:17",
            "currentPrimary": "c-1",
            "targetPrimary": "c-1",
            "currentPrimaryTimestamp": "2026-11-21T01:10:00Z",
            "instances": 3,
            "readyInstances": 2,
            "instanceNames": ["c-1", "c-2", "c-3"],
            "instancesStatus": {"healthy": ["c-1", "c-2"], "replicating": ["c-3"]},
            "effective": {"parameters": {"work_mem": "8MB"}},
            "certificates": {"expirations": {"c-server": "2027-02-19T04:40:00Z"}},
            "nextAction": "look again: a fence is up",
            "blockedBy": [{
                "reason": "Fenced", "message": "Fenced by the user: c-3",
                "since": "2026-11-21T04:35:00Z",
            }],
            "humanOptions": [{
                "action": "kubectl matriarch fencing off c \"*\"",
                "consequence": "PostgreSQL of the fenced instances starts",
            }],
            "conditions": [{
                "type": "FailoverProtected", "status": "True", "reason": "Protected",
                "message": "1 standbys stream", "lastTransitionTime": "2026-11-21T04:30:00Z",
            }],
        },
    }))
    .unwrap()
}

fn instance(serial: u32, report: &Value) -> Instance {
    serde_json::from_value(json!({
        "apiVersion": "matriarch.dev/v1",
        "kind": "Instance",
        "metadata": {"name": format!("c-{serial}"), "namespace": "shop"},
        "spec": {"clusterName": "c", "serial": serial},
        "status": report,
    }))
    .unwrap()
}

fn lease() -> Lease {
    let member = |name: &str| Member {
        name: name.into(),
        incarnation: format!("{name}-i").as_str().into(),
        address: Address { host: "10.0.0.1".into(), postgres_port: 5432, agent_port: 8000 },
    };
    Lease {
        holder: Some(Holder {
            name: "c-1".into(),
            incarnation: "c-1-i".into(),
            pod_uid: "u1".into(),
            container_id: "k".into(),
        }),
        term: Term(4),
        duration: Span::seconds(10),
        system_id: SystemId(7),
        history: History::root(Term(1), "c-1-i".into()),
        history_published: true,
        position: Position { term: Term(1), lsn: Lsn(0x1_6000_0060) },
        cohort: vec![member("c-1"), member("c-2")],
        stragglers: vec![member("c-3")],
        quorum: Some(Quorum { need: 2, of: ["c-1-i".into(), "c-2-i".into()].into() }),
        release: None,
        quorum_until: None,
        reassertions: 0,
        edition: 1,
    }
}

fn observed() -> Observed {
    let pods = ["c-1", "c-2", "c-3"].map(|name| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "uid": format!("u{}", &name[2..])},
            "spec": {"nodeName": "node-a", "containers": []},
            "status": {"qosClass": "Burstable"},
        });
        (name.to_owned(), serde_json::from_value(pod).unwrap())
    });
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "c"},
        "status": {
            "expectedPods": 2, "currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0,
        },
    });
    let common = json!({
        "timeline": 1, "postgresVersion": "17.6", "agentVersion": "0.1.0",
    });
    let report = |own: Value| {
        let mut report = common.clone();
        report.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        report
    };
    Observed {
        now: now(),
        cluster: cluster(),
        instances: vec![
            instance(
                1,
                &report(json!({
                    "podUid": "u1", "incarnation": "c-1-i", "role": "primary", "state": "running",
                })),
            ),
            instance(
                2,
                &report(json!({
                    "podUid": "u2", "incarnation": "c-2-i", "role": "standby", "state": "running",
                    "streaming": true, "following": "c-1",
                })),
            ),
            instance(
                3,
                &report(json!({
                    "podUid": "u3", "incarnation": "c-3-i", "role": "unknown", "state": "fenced",
                })),
            ),
        ],
        pods: pods.into(),
        lease: Some(lease()),
        budgets: vec![serde_json::from_value(budget).unwrap()],
        statistics: statistics(),
        unread: std::collections::BTreeSet::new(),
        errors: Vec::new(),
    }
}

fn statistics() -> std::collections::BTreeMap<String, Statistics> {
    let primary = json!({
        "lsn": "1/60000148", "walFile": "000000010000000100000060",
        "databaseBytes": 3_000_000_000_u64, "walBytes": 83_886_080,
        "senders": [{
            "applicationName": "c-2-i", "state": "streaming", "sentLsn": "1/60000148",
            "writeLsn": "1/60000148", "flushLsn": "1/60000148", "replayLsn": "1/60000060",
            "writeLag": "00:00:00.000312", "flushLag": "00:00:00.001204",
            "replayLag": "00:00:00.001411", "syncState": "quorum", "syncPriority": 1,
            "slot": "_matriarch_c_2",
        }, {"applicationName": "warehouse", "state": "catchup"}],
        "slots": [
            {
                "name": "_matriarch_c_2", "kind": "physical", "active": true,
                "restartLsn": "1/60000060", "walStatus": "reserved",
            },
            {"name": "_matriarch_c_3", "kind": "physical", "restartLsn": "1/5F000000"},
            {
                "name": "etl", "kind": "logical", "restartLsn": "1/50000000",
                "walStatus": "unreserved", "safeWalBytes": -1,
            },
        ],
    });
    [("c-1", primary), ("c-2", json!({"lsn": "1/60000060", "databaseBytes": 1, "walBytes": 1}))]
        .map(|(name, figures)| (name.to_owned(), serde_json::from_value(figures).unwrap()))
        .into()
}

#[test]
fn status_has_the_sections_in_their_order() {
    insta::assert_snapshot!("status", status::render(&observed(), 0, Identity::Matriarch));
}

#[test]
fn verbose_status_shows_configuration_certificates_roles_and_budgets() {
    insta::assert_snapshot!("status_verbose", status::render(&observed(), 2, Identity::Matriarch));
}

#[test]
fn what_could_not_be_read_is_unknown_and_not_absent() {
    let mut blind = observed();
    blind.lease = None;
    blind.pods.clear();
    blind.budgets.clear();
    blind.unread = [Part::Lease, Part::Pods, Part::Budgets].into();
    blind.errors = vec!["you may not read pods".to_owned()];
    let said = status::render(&blind, 1, Identity::Matriarch);
    assert!(!said.contains("no pod"), "{said}");
    assert!(!said.contains("No PodDisruptionBudgets"), "{said}");
    assert!(!said.contains("Commits wait for no standby"), "{said}");
    assert!(!said.contains("without the Lease"), "{said}");
    assert!(said.contains("you may not read pods"), "{said}");
}

#[test]
fn the_document_for_programs_leaves_out_what_is_the_operators_own() {
    let mut seen = observed();
    if let Some(status) = &mut seen.cluster.status {
        status.memory = Some(serde_json::from_value(json!({"nextSerial": 4})).unwrap());
    }
    let document = status::document(&seen).unwrap();
    assert_eq!(document["cluster"]["status"]["currentPrimary"], "c-1");
    assert_eq!(document["instances"][1]["status"]["following"], "c-1");
    assert_eq!(document["pods"][0]["node"], "node-a");
    assert!(document["cluster"]["status"].get("memory").is_none());
}

#[test]
fn explain_says_why_what_next_and_what_one_may_do() {
    let told = [(
        Some("2026-11-21T04:00:00Z".parse().unwrap()),
        "Switchover".to_owned(),
        "c-1 is the primary now".to_owned(),
    )];
    let mut said = explain::render(&cluster(), now());
    said.push_str(&explain::happened(&told, now()));
    insta::assert_snapshot!("explain", said);
}

#[test]
fn a_switchover_that_the_operator_would_refuse_is_refused_with_the_reason() {
    let ask = |name: &str| promote::decide(&cluster(), name, Identity::Matriarch);
    assert_eq!(ask("c-1").unwrap(), Decision::AlreadyPrimary);
    assert_eq!(ask("c-2").unwrap(), Decision::Ask);
    let refused = ask("c-3").unwrap_err().to_string();
    assert!(
        refused.contains("c-3 is fenced") && refused.contains("fencing off c c-3"),
        "{refused}"
    );
    assert_eq!(
        ask("c-9").unwrap_err().to_string(),
        "cluster c has no instance c-9; there are: c-1, c-2, c-3"
    );
    let mut waiting = cluster();
    waiting.metadata.annotations = None;
    let refused = promote::decide(&waiting, "c-3", Identity::Matriarch).unwrap_err().to_string();
    assert!(refused.contains("c-3 is not ready"), "{refused}");
}

#[test]
fn the_primary_is_not_restarted_alone() {
    assert!(restart::check(&cluster(), "c-2").is_ok());
    let refused = restart::check(&cluster(), "c-1").unwrap_err().to_string();
    assert!(refused.contains("`restart c`") && refused.contains("`promote c"), "{refused}");
}

#[test]
fn a_fence_grows_and_shrinks_and_is_never_lost() {
    let members = ["c-1", "c-2", "c-3"].map(str::to_owned);
    let some = |names: &[&str]| Fenced::Some(names.iter().map(|name| (*name).to_owned()).collect());
    let change = |before: &Fenced, switch, name| fencing::change(before, switch, name, &members);
    assert_eq!(change(&Fenced::None, Switch::On, "c-2"), some(&["c-2"]));
    assert_eq!(change(&some(&["c-2"]), Switch::On, "c-3"), some(&["c-2", "c-3"]));
    assert_eq!(change(&some(&["c-2"]), Switch::On, "*"), Fenced::All);
    assert_eq!(change(&Fenced::All, Switch::On, "c-2"), Fenced::All);
    assert_eq!(change(&Fenced::All, Switch::Off, "c-2"), some(&["c-1", "c-3"]));
    assert_eq!(change(&some(&["c-2"]), Switch::Off, "c-2"), Fenced::None);
    assert_eq!(change(&some(&["c-2"]), Switch::Off, "c-1"), some(&["c-2"]));
    assert_eq!(change(&some(&["c-2"]), Switch::Off, "*"), Fenced::None);
    let mut unreadable = cluster();
    let key = "matriarch.dev/fencedInstances".to_owned();
    unreadable.metadata.annotations = Some([(key, "c-1".to_owned())].into());
    assert!(fencing::present(&unreadable, Identity::Matriarch).is_err());
}

#[test]
fn log_lines_are_pretty_and_what_is_no_json_stays() {
    let line = |text: &str| logs::Line { pod: "c-1".to_owned(), text: text.to_owned(), time: None };
    let record = json!({
        "level": "error", "ts": "2026-11-21T04:40:00Z", "logger": "postgres", "msg": "record",
        "record": {"error_severity": "ERROR", "message": "division by zero", "query": "SELECT 1/0"},
    });
    assert_eq!(
        logs::pretty(&line(&record.to_string())),
        "2026-11-21T04:40:00Z ERROR c-1 postgres ERROR: division by zero query=\"SELECT 1/0\""
    );
    let own =
        r#"{"timestamp":"t","level":"INFO","message":"cloning","target":"agent","from":"c-2"}"#;
    assert_eq!(logs::pretty(&line(own)), "t INFO c-1 agent cloning from=\"c-2\"");
    assert_eq!(logs::pretty(&line("Killed")), "c-1 Killed");
}

#[test]
fn ages_are_written_as_kubectl_does() {
    let ages = [-5, 59, 200, 660, 3_700, 40_000, 180_000, 1_000_000].map(text::age);
    assert_eq!(ages, ["0s", "59s", "3m20s", "11m", "1h1m", "11h", "2d2h", "11d"]);
}

#[test]
fn errors_list_what_there_is() {
    assert_eq!(known(["b", "a"]), "there are: a, b");
    assert_eq!(known([]), "there is none");
    let refused = Error::Forbidden {
        verb: "patch",
        resource: "clusters.matriarch.dev".to_owned(),
        namespace: "shop".to_owned(),
        answer: "no".to_owned(),
    };
    let said = refused.to_string();
    assert!(said.contains("allows patch on clusters.matriarch.dev"), "{said}");
}

const MANIFEST: &str = "
apiVersion: matriarch.dev/v1
kind: Cluster
metadata:
  name: c
  annotations:
    note: bigger
spec:
  instances: 5
  storage:
    size: 1Gi
---
apiVersion: v1
kind: Secret
metadata:
  name: s
";

#[test]
fn a_manifest_changes_what_it_names_and_drops_nothing_silently() {
    let read = file::parse(Path::new("m.yaml"), MANIFEST, Identity::Matriarch).unwrap();
    assert_eq!(read.ignored, ["Secret/s"]);
    let merged = file::merge(Some(&cluster()), &read.clusters[0], "shop");
    assert_eq!(merged["status"]["currentPrimary"], "c-1", "the status is that of now");
    let changed: Cluster = serde_json::from_value(merged).unwrap();
    let changes = file::changes(Some(&cluster()), &changed);
    let told: Vec<String> = changes
        .iter()
        .map(|change| format!("{}: {:?} -> {:?}", change.path, change.before, change.after))
        .collect();
    assert_eq!(
        told,
        [
            "metadata.annotations.note: None -> Some(String(\"bigger\"))",
            "spec.instances: Some(Number(3)) -> Some(Number(5))",
        ]
    );
    let dropped = file::dropped(&json!({"instances": 1, "instance": 2}), &json!({"instances": 1}));
    assert_eq!(dropped, ["spec.instance"]);
    let wrong = file::parse(Path::new("m.yaml"), "kind: Secret", Identity::Matriarch);
    assert!(wrong.unwrap_err().to_string().contains("no Cluster of matriarch.dev/v1"));
}

#[test]
fn a_plan_for_a_new_cluster_names_every_action_and_what_follows() {
    let mut cluster = cluster();
    cluster.status = None;
    cluster.metadata.annotations = None;
    let setup = Setup::default();
    let owner = Owner { setup: &setup, cluster: &cluster };
    let resolved = resolve(&owner, &References::default());
    let objects = Objects {
        now_ms: now().as_millisecond(),
        instances: Ok(Vec::new()),
        pods: Ok(Vec::new()),
        claims: Ok(Vec::new()),
        lease: Seen::Absent,
        lease_unchanged_ms: 0,
        node: None,
        ended: std::collections::BTreeSet::new(),
        stateless: std::collections::BTreeMap::new(),
        services: std::collections::BTreeMap::new(),
        secrets: std::collections::BTreeMap::new(),
        references: References::default(),
    };
    let world = observe(&owner, &resolved, &objects);
    let plan = matriarch_plan::plan(&world);
    let foreseen = Foreseen {
        changes: file::changes(None, &cluster),
        is_new: true,
        dropped: vec!["spec.instance".to_owned()],
        unchecked: None,
        before: None,
        findings: matriarch_plan::lint(&world, &plan),
        assumed: vec!["the content of Secrets is not read".to_owned()],
        cluster,
        world,
        plan,
    };
    insta::assert_snapshot!("plan_new", plan::render(&foreseen));
}
