use std::collections::BTreeSet;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde_json::{Map, Value, json};

use super::*;

/// An RFC 7386 merge patch.
fn merged(mut base: Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else { return patch.clone() };
    if !base.is_object() {
        base = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            base.as_object_mut().unwrap().shift_remove(name);
        } else {
            let old = base.get(name).cloned().unwrap_or(Value::Null);
            base[name] = merged(old, value);
        }
    }
    base
}

#[expect(clippy::needless_pass_by_value, reason = "json! gives values")]
fn cluster(patch: Value) -> Value {
    let base = json!({
        "apiVersion": "matriarch.dev/v1",
        "kind": "Cluster",
        "metadata": { "name": "c" },
        "spec": { "instances": 3, "storage": { "size": "10Gi" } },
    });
    merged(base, &json!({ "spec": patch }))
}

struct Rules {
    validator: Validator,
    schema: CompiledSchema,
}

impl Rules {
    fn of_cluster() -> Self {
        let schema = schema(Kind::Cluster, Identity::Matriarch).unwrap();
        // kube-cel doubles every `_` of a field's name, where Kubernetes replaces only `__`.
        let text = schema.to_string().replace("self.bootstrap.pg_b", "self.bootstrap.pg__b");
        let schema = serde_json::from_str(&text).unwrap();
        Self { validator: Validator::new(), schema: compile_schema(&schema) }
    }

    fn refusals(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        match self.validator.validate_compiled(&self.schema, object, old) {
            Ok(()) => vec![],
            Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
        }
    }
}

/// Specs over the base that one rule refuses: what the message begins with, the new, the old one.
#[expect(clippy::too_many_lines, reason = "a table with one line for each rule")]
fn refused() -> Vec<(&'static str, Value, Option<Value>)> {
    let role = |role: Value| json!({ "managed": { "roles": [role] } });
    let sync = |extra: Value| json!({ "postgresql": { "synchronous": merged(json!({ "method": "any", "number": 1 }), &extra) } });
    let initdb = |initdb: Value| json!({ "bootstrap": { "initdb": initdb } });
    let import = |import: Value| {
        json!({
            "externalClusters": [{ "name": "old", "connectionParameters": { "host": "h" } }],
            "bootstrap": { "initdb": { "import": merged(json!({ "source": { "externalCluster": "old" } }), &import) } },
        })
    };
    let certificates = |value: Value| json!({ "certificates": value });
    let toleration = |value: Value| json!({ "affinity": { "tolerations": [value] } });
    let archiver = |name: &str| json!({ "name": name, "isWALArchiver": true });
    vec![
        (
            "imageName and imageCatalogRef",
            json!({ "imageName": "p:17", "imageCatalogRef": { "kind": "ImageCatalog", "name": "i", "major": 17 } }),
            None,
        ),
        ("imageName must have a tag", json!({ "imageName": "postgres:latest" }), None),
        ("imageName must have a tag", json!({ "imageName": "host:5000/postgres" }), None),
        (
            "imageName must have a tag",
            json!({ "imageName": format!("postgres@sha256:{}", "0".repeat(64)) }),
            None,
        ),
        ("storage is required", json!({ "storage": null }), None),
        (
            "postgresUID cannot be changed",
            json!({ "postgresUID": 27 }),
            Some(json!({ "postgresUID": 26 })),
        ),
        ("postgresGID cannot be changed", json!({ "postgresGID": 27 }), Some(json!({}))),
        (
            "serviceAccountName cannot be changed",
            json!({}),
            Some(json!({ "serviceAccountName": "a" })),
        ),
        (
            "serviceAccountName and serviceAccountTemplate",
            json!({ "serviceAccountName": "a", "serviceAccountTemplate": {} }),
            None,
        ),
        (
            "primaryUpdateStrategy supervised",
            json!({ "instances": 1, "primaryUpdateStrategy": "supervised" }),
            None,
        ),
        (
            "ephemeralVolumeSource and",
            json!({ "ephemeralVolumeSource": {}, "ephemeralVolumesSizeLimit": { "temporaryData": "1Gi" } }),
            None,
        ),
        (
            "certificates.serverTLSSecret needs",
            certificates(json!({ "serverTLSSecret": "s" })),
            None,
        ),
        (
            "certificates.serverAltDNSNames",
            certificates(
                json!({ "serverTLSSecret": "s", "serverCASecret": "c", "serverAltDNSNames": ["x"] }),
            ),
            None,
        ),
        (
            "certificates.replicationTLSSecret",
            certificates(json!({ "replicationTLSSecret": "s" })),
            None,
        ),
        (
            "primaryLease.leaseDurationSeconds",
            json!({ "primaryLease": { "leaseDurationSeconds": 10 } }),
            None,
        ),
        (
            "primaryLease.renewDeadlineSeconds",
            json!({ "primaryLease": { "retryPeriodSeconds": 9 } }),
            None,
        ),
        (
            "walStorage cannot be removed",
            json!({}),
            Some(json!({ "walStorage": { "size": "1Gi" } })),
        ),
        (
            "tablespaces cannot be removed",
            json!({ "tablespaces": [{ "name": "b", "storage": { "size": "1Gi" } }] }),
            Some(json!({ "tablespaces": [{ "name": "a", "storage": { "size": "1Gi" } }] })),
        ),
        (
            "names of tablespaces that begin with pg_",
            json!({ "tablespaces": [{ "name": "pg_a", "storage": { "size": "1Gi" } }] }),
            None,
        ),
        ("size or pvcTemplate", json!({ "walStorage": {} }), None),
        ("size must be greater", json!({ "storage": { "size": "0" } }), None),
        ("size cannot shrink", json!({ "storage": { "size": "9Gi" } }), Some(json!({}))),
        ("minSyncReplicas cannot be", json!({ "minSyncReplicas": 2, "maxSyncReplicas": 1 }), None),
        ("maxSyncReplicas must be lower", json!({ "maxSyncReplicas": 3 }), None),
        (
            "minSyncReplicas and maxSyncReplicas cannot",
            merged(sync(json!({})), &json!({ "maxSyncReplicas": 1 })),
            None,
        ),
        ("postgresql.synchronous.number must", sync(json!({ "number": 3 })), None),
        (
            "dataDurability preferred",
            sync(json!({ "dataDurability": "preferred", "standbyNamesPre": ["x"] })),
            None,
        ),
        (
            "podFailureDomainKeys and",
            sync(json!({ "podFailureDomainKeys": ["a"], "nodeFailureDomainKeys": ["b"] })),
            None,
        ),
        (
            "failoverQuorum needs",
            sync(json!({ "failoverQuorum": true, "standbyNamesPre": ["x"] })),
            None,
        ),
        (
            "replicationSlots.highAvailability.slotPrefix",
            json!({ "replicationSlots": { "highAvailability": { "slotPrefix": "b_" } } }),
            Some(json!({ "replicationSlots": { "highAvailability": { "slotPrefix": "a_" } } })),
        ),
        (
            "replicationSlots.highAvailability cannot be removed",
            json!({}),
            Some(json!({ "replicationSlots": { "highAvailability": { "enabled": true } } })),
        ),
        ("replica.enabled and", json!({ "replica": { "enabled": true, "primary": "p" } }), None),
        (
            "replica.promotionToken and",
            json!({ "replica": { "promotionToken": "t", "minApplyDelay": "1h" } }),
            None,
        ),
        (
            "only one of initdb",
            json!({ "bootstrap": { "initdb": {}, "recovery": { "backup": { "name": "b" } } } }),
            None,
        ),
        ("icuLocale needs", initdb(json!({ "icuLocale": "en" })), None),
        ("icuRules needs", initdb(json!({ "icuRules": "&a < b", "localeProvider": "libc" })), None),
        ("builtinLocale needs", initdb(json!({ "builtinLocale": "C" })), None),
        (
            "import of type microservice",
            import(json!({ "type": "microservice", "databases": ["a", "b"] })),
            None,
        ),
        (
            "import of type monolith",
            import(json!({ "type": "monolith", "databases": ["*", "b"] })),
            None,
        ),
        ("recovery needs", json!({ "bootstrap": { "recovery": {} } }), None),
        (
            "only one of targetXID",
            json!({ "bootstrap": { "recovery": { "backup": { "name": "b" }, "recoveryTarget": { "targetXID": "1", "targetName": "n" } } } }),
            None,
        ),
        (
            "bootstrap.recovery.source must",
            json!({ "bootstrap": { "recovery": { "source": "none" } } }),
            None,
        ),
        (
            "bootstrap.pg_basebackup.source must",
            json!({ "bootstrap": { "pg_basebackup": { "source": "none" } } }),
            None,
        ),
        (
            "bootstrap.initdb.import.source.externalCluster must",
            merged(
                import(json!({ "type": "microservice", "databases": ["a"] })),
                &json!({ "externalClusters": [{ "name": "new", "plugin": { "name": "p" } }] }),
            ),
            None,
        ),
        ("replica.source must", json!({ "replica": { "source": "none" } }), None),
        (
            "the name of this environment variable",
            json!({ "env": [{ "name": "PGDATA", "value": "x" }] }),
            None,
        ),
        (
            "the name of this environment variable",
            json!({ "env": [{ "name": "POD_NAME", "value": "x" }] }),
            None,
        ),
        (
            "a toleration without key",
            toleration(json!({ "operator": "Equal", "value": "v" })),
            None,
        ),
        (
            "a toleration with operator Exists",
            toleration(json!({ "key": "k", "operator": "Exists", "value": "v" })),
            None,
        ),
        ("an external cluster needs", json!({ "externalClusters": [{ "name": "a" }] }), None),
        ("the name of this role", role(json!({ "name": "pg_monitor" })), None),
        (
            "passwordSecret and disablePassword",
            role(
                json!({ "name": "r", "passwordSecret": { "name": "s" }, "disablePassword": true }),
            ),
            None,
        ),
        (
            "a managed service cannot",
            json!({ "managed": { "services": { "additional": [{ "selectorType": "rw", "serviceTemplate": { "spec": { "selector": { "a": "b" } } } }] } } }),
            None,
        ),
        ("only one plugin", json!({ "plugins": [archiver("a"), archiver("b")] }), None),
        (
            "backup.barmanObjectStore cannot",
            json!({ "plugins": [archiver("a")], "backup": { "barmanObjectStore": { "destinationPath": "s3://b" } } }),
            None,
        ),
    ]
}

#[test]
fn every_rule_refuses_what_it_is_there_for() {
    let rules = Rules::of_cluster();
    let mut missing: BTreeSet<String> =
        rules_of(Kind::Cluster, Identity::Matriarch).into_iter().map(|rule| rule.message).collect();
    for (begins, spec, old) in refused() {
        let told = rules.refusals(&cluster(spec.clone()), old.map(cluster).as_ref());
        assert!(
            told.iter().any(|message| message.starts_with(begins)),
            "{begins}: {spec}: {told:?}"
        );
        missing.retain(|message| !message.starts_with(begins));
    }
    let long = merged(cluster(json!({})), &json!({ "metadata": { "name": "c".repeat(51) } }));
    let told = rules.refusals(&long, None);
    missing.retain(|message| !told.contains(message));
    assert!(missing.is_empty(), "no case for: {missing:#?}");
}

#[test]
fn rules_accept_what_cloudnativepg_accepts() {
    let rules = Rules::of_cluster();
    for spec in [
        json!({}),
        json!({ "imageName": "ghcr.io/x/postgresql:17.6-system-trixie" }),
        json!({ "imageName": format!("host:5000/postgres:17@sha256:{}", "a".repeat(64)) }),
        json!({ "postgresUID": 26, "storage": { "size": "11Gi" }, "walStorage": { "size": "1.5Gi" } }),
        json!({ "postgresql": { "synchronous": { "method": "first", "number": 2, "dataDurability": "preferred" } } }),
        json!({ "postgresql": { "parameters": { "pg_stat_statements.max": "10000", "work_mem": "4MB" } } }),
        json!({ "minSyncReplicas": 1, "maxSyncReplicas": 2 }),
        json!({ "bootstrap": { "initdb": { "localeProvider": "icu", "icuLocale": "en", "walSegmentSize": 32 } } }),
        json!({ "storage": { "size": null, "pvcTemplate": { "resources": { "requests": { "storage": "1Gi" } } } } }),
        json!({ "env": [{ "name": "LANG", "value": "C" }], "primaryLease": { "leaseDurationSeconds": 20 } }),
    ] {
        assert_eq!(rules.refusals(&cluster(spec.clone()), None), [""; 0], "{spec}");
    }
}

#[test]
fn definitions_are_small_enough_for_plain_apply() {
    for identity in Identity::ALL {
        for kind in Kind::ALL {
            let bytes = json(kind, identity).unwrap().to_string().len();
            println!("{} {identity}: {bytes} bytes", kind.name());
            assert!(bytes <= MAX_BYTES, "{} has {bytes} bytes", kind.name());
            assert!(definition(kind, identity).is_ok());
        }
    }
}

#[test]
fn schemas_are_structural() {
    for kind in Kind::ALL {
        let schema = schema(kind, Identity::Matriarch).unwrap();
        walk("", &schema, &mut |path, node| {
            let fields = node.as_object().unwrap();
            for forbidden in
                ["$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "nullable", "const"]
            {
                assert!(!fields.contains_key(forbidden), "{path} has {forbidden}");
            }
            let typed = fields.get("type").is_some_and(Value::is_string);
            let free = fields.contains_key("x-kubernetes-int-or-string")
                || fields.contains_key("x-kubernetes-preserve-unknown-fields");
            assert!(typed || free, "{path} has no type: {node}");
            assert!(
                !(fields.contains_key("properties") && fields.contains_key("additionalProperties")),
                "{path} is an object and a map"
            );
            for key in fields
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let items = &node["items"];
                let required =
                    items["required"].as_array().is_some_and(|names| names.contains(key));
                let defaulted = items["properties"][key.as_str().unwrap()].get("default").is_some();
                assert!(
                    required || defaulted,
                    "{path}: key {key} is neither required nor defaulted"
                );
            }
        });
    }
}

#[test]
fn what_the_schema_admits_can_be_read() {
    for kind in [Kind::Cluster, Kind::Instance] {
        let schema = schema(kind, Identity::Matriarch).unwrap();
        let mut object = sample(&schema);
        object["metadata"] = json!({ "name": "c" });
        let read = match kind {
            Kind::Instance => serde_json::from_value::<crate::Instance>(object).map(|_| ()),
            Kind::Cluster => serde_json::from_value::<crate::Cluster>(object).map(|_| ()),
            Kind::ImageCatalog | Kind::ClusterImageCatalog => Ok(()),
        };
        assert!(read.is_ok(), "{}: {read:?}", kind.name());
    }
}

/// An object with every field of a schema.
fn sample(node: &Value) -> Value {
    if let Some(word) = node["enum"].get(0) {
        return word.clone();
    }
    if node.get("x-kubernetes-int-or-string").is_some() {
        return json!(1);
    }
    match (node["type"].as_str(), node["format"].as_str()) {
        (Some("string"), Some("date-time")) => json!("2026-01-01T00:00:00Z"),
        (Some("string"), Some("byte")) => json!("YQ=="),
        (Some("string"), _) => json!("x"),
        (Some("integer"), _) => node.get("maximum").cloned().unwrap_or(json!(7)),
        (Some("number"), _) => json!(1.5),
        (Some("boolean"), _) => json!(true),
        (Some("array"), _) => json!([sample(&node["items"])]),
        (Some("object"), _) => {
            let mut fields = Map::new();
            for (name, child) in node["properties"].as_object().into_iter().flatten() {
                fields.insert(name.clone(), sample(child));
            }
            if let Some(values) = node.get("additionalProperties") {
                fields.insert("k".to_owned(), sample(values));
            }
            Value::Object(fields)
        }
        _ => json!({}),
    }
}

#[test]
fn printer_columns_of_a_cluster_begin_as_cloudnativepgs() {
    let names: Vec<String> = columns(Kind::Cluster).into_iter().map(|c| c.name).collect();
    assert_eq!(names[..6], ["Age", "Instances", "Ready", "Status", "Primary", "SyncTopology"]);
}

#[test]
fn descriptions_are_ours_alone() {
    let schema = schema(Kind::Cluster, Identity::Matriarch).unwrap();
    let spec = &schema["properties"]["spec"]["properties"];
    assert!(spec["resources"]["description"].is_string());
    assert!(spec["resources"]["properties"]["limits"].get("description").is_none());
    assert!(spec["storage"]["properties"]["size"]["description"].is_string());
    assert!(spec["walStorage"]["properties"].get("retainPolicy").is_none());
    assert!(spec["storage"]["properties"].get("retainPolicy").is_some());
}
