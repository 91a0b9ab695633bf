//! The script: requests as data, in the order in which they are sent.

#![expect(clippy::too_many_lines, reason = "a script is read from the top to the bottom")]

use serde_json::{Value, json};

mod reads;

use reads::{lists, watches};

/// What kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    /// GET until it is answered with 200.
    Wait,
    Table,
    Metadata,
    Watch,
    Post,
    Put,
    Json,
    Merge,
    Strategic,
    Apply,
    Delete,
}

impl Verb {
    pub fn method(self) -> &'static str {
        match self {
            Self::Get | Self::Wait | Self::Table | Self::Metadata | Self::Watch => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Json | Self::Merge | Self::Strategic | Self::Apply => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
            Self::Get
            | Self::Wait
            | Self::Table
            | Self::Metadata
            | Self::Watch
            | Self::Post
            | Self::Put
            | Self::Delete => "application/json",
        }
    }

    pub fn accept(self) -> &'static str {
        match self {
            Self::Table => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Self::Metadata => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            Self::Get
            | Self::Wait
            | Self::Watch
            | Self::Post
            | Self::Put
            | Self::Json
            | Self::Merge
            | Self::Strategic
            | Self::Apply
            | Self::Delete => "application/json",
        }
    }
}

/// How much of an answer is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Everything.
    All,
    /// The code, the reason and the fields of the causes: where the text repeats Go's data.
    Reason,
    /// The columns and cells of a table.
    Cells,
    /// The code.
    Code,
}

/// One request.
pub struct Step {
    pub name: &'static str,
    pub verb: Verb,
    pub path: String,
    pub body: Value,
    pub compared: Compared,
    /// A variable and the place in the answer that it is read from.
    pub capture: Option<(&'static str, &'static str)>,
}

impl Step {
    fn reason(mut self) -> Self {
        self.compared = Compared::Reason;
        self
    }

    fn cells(mut self) -> Self {
        self.compared = Compared::Cells;
        self
    }

    fn code(mut self) -> Self {
        self.compared = Compared::Code;
        self
    }

    fn keep(mut self, variable: &'static str, pointer: &'static str) -> Self {
        self.capture = Some((variable, pointer));
        self
    }
}

const VERSION: &str = "/metadata/resourceVersion";

fn step(name: &'static str, verb: Verb, path: &str, body: Value) -> Step {
    let path = match path.strip_prefix('~') {
        Some(rest) => format!("/api/v1/namespaces/conf{rest}"),
        None => match path.strip_prefix('@') {
            Some(rest) => format!("/apis/conformance.test/v1/namespaces/conf/widgets{rest}"),
            None => path.to_owned(),
        },
    };
    Step { name, verb, path, body, compared: Compared::All, capture: None }
}

fn get(name: &'static str, path: &str) -> Step {
    step(name, Verb::Get, path, Value::Null)
}

/// All steps.
pub fn steps() -> Vec<Step> {
    let mut all = basics();
    all.extend(updates());
    all.extend(builtin_kinds());
    all.extend(strategic());
    all.extend(definitions());
    all.extend(custom());
    all.extend(subresources());
    all.extend(applies());
    all.extend(custom_applies());
    all.extend(lists());
    all.extend(watches());
    all.extend(deletions());
    all
}

fn config_map(name: &str, data: Value) -> Value {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    map["data"] = data;
    map
}

fn basics() -> Vec<Step> {
    use Verb::{Delete, Get, Post};
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "conf"}});
    vec![
        step("create a namespace", Post, "/api/v1/namespaces", namespace.clone()),
        step("create it again", Post, "/api/v1/namespaces", namespace),
        step("read the namespace", Get, "/api/v1/namespaces/conf", Value::Null),
        step("create a config map", Post, "~/configmaps", config_map("a", json!({"k": "1"})))
            .keep("a", VERSION),
        step("create it twice", Post, "~/configmaps", config_map("a", json!({}))),
        get("read it", "~/configmaps/a"),
        get("read what is not there", "~/configmaps/absent"),
        get("a resource that is not there", "/api/v1/namespaces/conf/nothings").code(),
        step("delete what is not there", Delete, "~/configmaps/absent", Value::Null),
        step(
            "in a namespace that is not there",
            Post,
            "/api/v1/namespaces/none/configmaps",
            config_map("x", json!({})),
        ),
        step(
            "of another namespace than the path's",
            Post,
            "~/configmaps",
            json!({"metadata": {"name": "x", "namespace": "other"}}),
        ),
        step("without a name", Post, "~/configmaps", json!({"metadata": {}})),
        step(
            "with a generated name",
            Post,
            "~/configmaps",
            json!({"metadata": {"generateName": "gen-"}}),
        ),
        step("with a name that is none", Post, "~/configmaps", config_map("A_b", json!({}))),
        step(
            "with a label that is none",
            Post,
            "~/configmaps",
            json!({"metadata": {"name": "x", "labels": {"a": "b c"}}}),
        ),
        step("with a key that is none", Post, "~/configmaps", config_map("x", json!({"a b": "1"}))),
        step(
            "of another kind",
            Post,
            "~/configmaps",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}),
        )
        .reason(),
        step(
            "of another version",
            Post,
            "~/configmaps",
            json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}}),
        )
        .reason(),
        step(
            "with a value of the wrong type",
            Post,
            "~/configmaps",
            config_map("x", json!({"k": 1})),
        )
        .reason(),
        step(
            "with an unknown field, strictly",
            Post,
            "~/configmaps?fieldValidation=Strict",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "foo": 1}),
        ),
        step(
            "with an unknown field, dropped",
            Post,
            "~/configmaps?fieldValidation=Ignore",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dropped"}, "foo": 1}),
        ),
        step("dry run", Post, "~/configmaps?dryRun=All", config_map("dry", json!({"k": "1"}))),
        get("nothing was kept", "~/configmaps/dry"),
    ]
}

fn updates() -> Vec<Step> {
    use Verb::{Json, Merge, Put};
    let versioned = |version: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "resourceVersion": version}, "data": {"k": value}})
    };
    vec![
        step("update by version", Put, "~/configmaps/a", versioned("${a}", "2")),
        step("update by a stale version", Put, "~/configmaps/a", versioned("${a}", "3")),
        step("update without version", Put, "~/configmaps/a", config_map("a", json!({"k": "4"}))),
        step("update under another name", Put, "~/configmaps/a", config_map("b", json!({}))),
        step(
            "update what is not there",
            Put,
            "~/configmaps/absent",
            config_map("absent", json!({})),
        ),
        step(
            "with another uid",
            Put,
            "~/configmaps/a",
            json!({"metadata": {"name": "a", "uid": "00000000-0000-4000-8000-000000000000"}}),
        ),
        step("merge patch", Merge, "~/configmaps/a", json!({"data": {"k": null, "l": "5"}})),
        step(
            "merge patch by a stale version",
            Merge,
            "~/configmaps/a",
            json!({"metadata": {"resourceVersion": "${a}"}, "data": {"l": "6"}}),
        ),
        step("merge patch of what is not there", Merge, "~/configmaps/absent", json!({"data": {}})),
        step(
            "merge patch that changes nothing",
            Merge,
            "~/configmaps/a",
            json!({"data": {"l": "5"}}),
        ),
        step(
            "JSON patch",
            Json,
            "~/configmaps/a",
            json!([{"op": "test", "path": "/data/l", "value": "5"}, {"op": "add", "path": "/data/m", "value": "6"}]),
        ),
        step(
            "JSON patch whose test fails",
            Json,
            "~/configmaps/a",
            json!([{"op": "test", "path": "/data/l", "value": "9"}]),
        )
        .code(),
        step(
            "JSON patch of a path that is not there",
            Json,
            "~/configmaps/a",
            json!([{"op": "remove", "path": "/data/none"}]),
        )
        .code(),
        step(
            "labels and owners",
            Merge,
            "~/configmaps/a",
            json!({"metadata": {
            "labels": {"app": "a", "tier": "1"}, "annotations": {"x/y": "z"}}}),
        ),
        step(
            "an owner without uid",
            Merge,
            "~/configmaps/a",
            json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "b"}]}}),
        )
        .reason(),
        get("read the result", "~/configmaps/a"),
    ]
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "p"}},
        "spec": {"containers": [{"name": "main", "image": "img:1",
            "env": [{"name": "A", "value": "1"}],
            "ports": [{"containerPort": 5432}],
            "readinessProbe": {"httpGet": {"port": 8000}}}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x"}}]}})
}

fn claim(size: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
}

fn builtin_kinds() -> Vec<Step> {
    use Verb::{Merge, Post};
    let lease = "/apis/coordination.k8s.io/v1/namespaces/conf/leases";
    let slices = "/apis/discovery.k8s.io/v1/namespaces/conf/endpointslices";
    let budgets = "/apis/policy/v1/namespaces/conf/poddisruptionbudgets";
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/conf";
    let volumes = "/api/v1/persistentvolumes";
    vec![
        step("create a secret", Post, "~/secrets", json!({"metadata": {"name": "s"}, "stringData": {"p": "x"}})),
        step("change its type", Merge, "~/secrets/s", json!({"type": "other"})),
        step("a TLS secret without key", Post, "~/secrets", json!({"metadata": {"name": "t"}, "type": "kubernetes.io/tls"})),
        step("freeze it", Merge, "~/secrets/s", json!({"immutable": true})),
        step("change it all the same", Merge, "~/secrets/s", json!({"data": {"p": "eQ=="}})),
        step("create a pod", Post, "~/pods", pod("p")),
        step("a pod without image", Post, "~/pods", json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "a"}]}})),
        step("a pod without containers", Post, "~/pods", json!({"metadata": {"name": "q"}, "spec": {}})).reason(),
        step("change the pod's image", Merge, "~/pods/p", json!({"spec": {"containers": [{"name": "main", "image": "img:2"}]}})).reason(),
        step("change the pod's node", Merge, "~/pods/p", json!({"spec": {"hostname": "x"}})).reason(),
        step("the pod's status", Merge, "~/pods/p/status", json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}, "spec": {"hostname": "ignored"}})),
        step("create a claim", Post, "~/persistentvolumeclaims", claim("1Gi")),
        step("shrink it", Merge, "~/persistentvolumeclaims/c", json!({"spec": {"accessModes": ["ReadWriteMany"]}})).reason(),
        step("create a service", Post, "~/services", json!({"metadata": {"name": "svc"}, "spec": {"ports": [{"port": 5432}], "selector": {"app": "p"}}})),
        step("a headless service", Post, "~/services", json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}})),
        step("change the service's selector", Merge, "~/services/svc", json!({"spec": {"selector": {"app": "q"}}})),
        step("a service without ports", Post, "~/services", json!({"metadata": {"name": "bad"}, "spec": {}})),
        step("create a lease", Post, lease, json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 5}})).keep("lease", VERSION),
        step("update the lease", Verb::Put, &format!("{lease}/l"), json!({"metadata": {"name": "l", "resourceVersion": "${lease}"}, "spec": {"holderIdentity": "b", "leaseTransitions": 1}})),
        step("update it by its old version", Verb::Put, &format!("{lease}/l"), json!({"metadata": {"name": "l", "resourceVersion": "${lease}"}, "spec": {}})),
        step("a lease of no seconds", Post, lease, json!({"metadata": {"name": "m"}, "spec": {"leaseDurationSeconds": 0}})),
        step("create an endpoint slice", Post, slices, json!({"metadata": {"name": "e", "labels": {"kubernetes.io/service-name": "svc"}}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 5432}]})),
        step("update a lease without version", Verb::Put, &format!("{lease}/l"), json!({"metadata": {"name": "l"}, "spec": {}})),
        step("update a service without its address", Verb::Put, "~/services/svc", json!({"metadata": {"name": "svc"}, "spec": {"ports": [{"port": 5432}], "selector": {"app": "p"}}})),
        step("create a volume", Post, volumes, json!({"metadata": {"name": "conf-v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}, "storageClassName": "none"}})),
        get("read the volume", &format!("{volumes}/conf-v")),
        step("the volume's status", Merge, &format!("{volumes}/conf-v/status"), json!({"status": {"phase": "Available"}})),
        step("volumes as a table", Verb::Table, volumes, Value::Null).cells(),
        step("swap its endpoint", Merge, &format!("{slices}/e"), json!({"endpoints": [{"addresses": ["10.1.2.4"]}]})),
        step("change its address type", Merge, &format!("{slices}/e"), json!({"addressType": "FQDN"})).reason(),
        step("create a budget", Post, budgets, json!({"metadata": {"name": "b"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}})),
        step("a budget with both", Post, budgets, json!({"metadata": {"name": "b2"}, "spec": {"maxUnavailable": 1, "minAvailable": 1}})).reason(),
        step("create a role", Post, &format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["p"]}]})),
        step("bind it", Post, &format!("{rbac}/rolebindings"), json!({"metadata": {"name": "r"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "x", "namespace": "conf"}]})),
        step("bind it to another role", Merge, &format!("{rbac}/rolebindings/r"), json!({"roleRef": {"name": "other"}})).reason(),
        step("create an account", Post, "~/serviceaccounts", json!({"metadata": {"name": "acc"}})),
        step("an event of the new group", Post, "/apis/events.k8s.io/v1/namespaces/conf/events", json!({"metadata": {"name": "ev"}, "eventTime": "2025-01-01T00:00:00.000000Z", "action": "Act", "reason": "Because", "type": "Normal", "note": "hello", "reportingController": "me", "reportingInstance": "me-1", "regarding": {"kind": "Pod", "name": "p", "namespace": "conf", "uid": "1"}})),
        get("read it in the new group", "/apis/events.k8s.io/v1/namespaces/conf/events/ev"),
        get("is an event of the old group", "~/events?fieldSelector=involvedObject.name=p,involvedObject.kind=Pod"),
    ]
}

fn strategic() -> Vec<Step> {
    use Verb::Strategic;
    vec![
        step("containers are merged by name", Strategic, "~/pods/p", json!({"spec": {"containers": [{"name": "main", "image": "img:3"}]}})),
        step("owners by uid", Strategic, "~/pods/p", json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u1"}]}})).reason(),
        step("finalizers are a set", Strategic, "~/pods/p", json!({"metadata": {"finalizers": ["test.io/a"]}})),
        step("of which one is added", Strategic, "~/pods/p", json!({"metadata": {"finalizers": ["test.io/b"]}})),
        step("and one removed", Strategic, "~/pods/p", json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["test.io/a"]}})),
        step("ports by port", Strategic, "~/services/svc", json!({"spec": {"ports": [{"port": 5432, "name": "pg"}, {"port": 9187, "name": "metrics"}]}})),
        step("a port is deleted", Strategic, "~/services/svc", json!({"spec": {"ports": [{"port": 5432, "$patch": "delete"}]}})),
        step("a map is replaced", Strategic, "~/configmaps/a", json!({"data": {"$patch": "replace", "n": "1"}})),
    ]
}

fn definition() -> Value {
    let replicas =
        json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 9, "default": 1});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.conformance.test"},
        "spec": {"group": "conformance.test", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                    "spec": {"type": "object", "required": ["color"],
                        "x-kubernetes-validations": [
                            {"rule": "!has(self.min) || self.min <= self.replicas", "message": "min must not exceed replicas"},
                            {"rule": "self.color == oldSelf.color", "message": "color is immutable", "fieldPath": ".color"}],
                        "properties": {
                            "replicas": replicas,
                            "min": {"type": "integer"},
                            "wide": {"type": "integer", "format": "int32"},
                            "color": {"type": "string", "enum": ["red", "blue"]},
                            "name": {"type": "string", "maxLength": 5, "minLength": 2, "pattern": "^[a-z]+$"},
                            "size": {"x-kubernetes-int-or-string": true},
                            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                            "tags": {"type": "array", "maxItems": 3, "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "count": {"type": "integer", "default": 7}}}},
                            "labels": {"type": "object", "additionalProperties": {"type": "string"}}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}, "selector": {"type": "string"}}}}}}}]}})
}

fn definitions() -> Vec<Step> {
    use Verb::{Post, Wait};
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut misnamed = definition();
    misnamed["metadata"]["name"] = "other.conformance.test".into();
    vec![
        step("a definition of another name", Post, path, misnamed),
        step("a definition", Post, path, definition()).code(),
        step("is served", Wait, "@", Value::Null),
        get("is discovered", "/apis/conformance.test/v1").code(),
        get("its group too", "/apis/conformance.test"),
    ]
}

fn widget(name: &str, spec: Value) -> Value {
    let mut widget = json!({"apiVersion": "conformance.test/v1", "kind": "Widget"});
    widget["metadata"] = json!({"name": name});
    widget["spec"] = spec;
    widget
}

fn custom() -> Vec<Step> {
    use Verb::{Merge, Post, Put, Strategic};
    let invalid = |name, spec| step(name, Post, "@", widget("bad", spec));
    vec![
        step("create with defaults", Post, "@", widget("w", json!({"color": "red"})))
            .keep("w", VERSION),
        step(
            "unknown fields are pruned",
            Post,
            "@",
            widget("pruned", json!({"color": "red", "foo": 1, "any": {"x": {"y": 1}}})),
        ),
        step(
            "or refused",
            Post,
            "@?fieldValidation=Strict",
            widget("bad", json!({"color": "red", "foo": 1})),
        ),
        step("without a kind", Post, "@", json!({"metadata": {"name": "bad"}})).reason(),
        invalid("a required field is missing", json!({})),
        step(
            "the whole spec is missing",
            Post,
            "@",
            json!({"apiVersion": "conformance.test/v1", "kind": "Widget", "metadata": {"name": "bad"}}),
        ),
        invalid("not one of the enum", json!({"color": "green"})),
        invalid("wrong type", json!({"color": "red", "replicas": "three"})),
        invalid("an object for a text", json!({"color": {"a": 1}})),
        invalid("too large", json!({"color": "red", "replicas": 10})),
        step(
            "wider than its format",
            Post,
            "@",
            widget("wide", json!({"color": "red", "wide": 3_000_000_000_u64})),
        ),
        invalid("a text for two types", json!({"color": 1, "any": "x", "tags": "a"})),
        invalid("too small", json!({"color": "red", "replicas": -1})),
        invalid("too long", json!({"color": "red", "name": "abcdef"})),
        invalid("too short", json!({"color": "red", "name": "a"})),
        invalid("not the pattern", json!({"color": "red", "name": "A1"})),
        invalid("too many", json!({"color": "red", "tags": ["a", "b", "c", "d"]})),
        invalid("twice in a set", json!({"color": "red", "tags": ["a", "a"]})),
        invalid(
            "twice in a map list",
            json!({"color": "red", "parts": [{"name": "a"}, {"name": "a"}]}),
        ),
        invalid("int or string is neither", json!({"color": "red", "size": true})),
        invalid("a CEL rule", json!({"color": "red", "replicas": 1, "min": 2})),
        invalid("several at once", json!({"color": "green", "replicas": 10})),
        step(
            "null for a default",
            Post,
            "@",
            widget("null", json!({"color": "red", "replicas": null})),
        ),
        step(
            "a default inside a list",
            Post,
            "@",
            widget("parts", json!({"color": "red", "size": "1Gi", "parts": [{"name": "a"}]})),
        ),
        step("a transition rule", Merge, "@/w", json!({"spec": {"color": "blue"}})),
        step("a change is a generation", Merge, "@/w", json!({"spec": {"replicas": 3}})),
        step("a label is none", Merge, "@/w", json!({"metadata": {"labels": {"app": "w"}}})),
        step("update needs a version", Put, "@/w", widget("w", json!({"color": "red"}))),
        step(
            "update by a stale version",
            Put,
            "@/w",
            json!({"apiVersion": "conformance.test/v1", "kind": "Widget", "metadata": {"name": "w", "resourceVersion": "${w}"}, "spec": {"color": "red"}}),
        ),
        step("strategic patch is not for these", Strategic, "@/w", json!({"spec": {}})).code(),
        step("merge patch to an invalid object", Merge, "@/w", json!({"spec": {"replicas": 99}})),
        step(
            "status in the object's own path is ignored",
            Merge,
            "@/w",
            json!({"status": {"phase": "x"}}),
        ),
    ]
}

fn subresources() -> Vec<Step> {
    use Verb::{Merge, Put};
    let scale = |replicas: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "w", "namespace": "conf"}, "spec": {"replicas": replicas}});
    vec![
        step(
            "status by its own path",
            Merge,
            "@/w/status",
            json!({"spec": {"replicas": 5}, "metadata": {"labels": {"ignored": "yes"}}, "status": {"phase": "Ready", "replicas": 3, "selector": "app=w"}}),
        ),
        get("read the status", "@/w/status"),
        step("status of the wrong type", Merge, "@/w/status", json!({"status": {"replicas": "x"}})),
        get("read the scale", "@/w/scale"),
        step("scale by update", Put, "@/w/scale", scale(json!(2))),
        step("scale by patch", Merge, "@/w/scale", json!({"spec": {"replicas": 4}})),
        step("scale below zero", Put, "@/w/scale", scale(json!(-1))).reason(),
        step("scale above the schema", Put, "@/w/scale", scale(json!(10))).reason(),
        get("scale of what has none", "~/configmaps/a/scale").code(),
        get("status of what has none", "~/configmaps/a/status").code(),
        get("read the object", "@/w"),
    ]
}

fn applies() -> Vec<Step> {
    use Verb::{Apply, Get, Merge, Post};
    let map = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": data});
    vec![
        step("apply without manager", Apply, "~/configmaps/ssa", map(json!({"a": "1"}))),
        step(
            "apply creates",
            Apply,
            "~/configmaps/ssa?fieldManager=one",
            map(json!({"a": "1", "b": "1"})),
        ),
        step(
            "apply the same",
            Apply,
            "~/configmaps/ssa?fieldManager=one",
            map(json!({"a": "1", "b": "1"})),
        ),
        step(
            "apply a change",
            Apply,
            "~/configmaps/ssa?fieldManager=one",
            map(json!({"a": "2", "b": "1"})),
        ),
        step(
            "another applies its own field",
            Apply,
            "~/configmaps/ssa?fieldManager=two",
            map(json!({"c": "1"})),
        ),
        step(
            "and one that conflicts",
            Apply,
            "~/configmaps/ssa?fieldManager=two",
            map(json!({"a": "3", "c": "1"})),
        ),
        step(
            "two that conflict",
            Apply,
            "~/configmaps/ssa?fieldManager=two",
            map(json!({"a": "3", "b": "3"})),
        ),
        step(
            "the same value is shared",
            Apply,
            "~/configmaps/ssa?fieldManager=two",
            map(json!({"a": "2", "c": "1"})),
        ),
        step(
            "force takes it",
            Apply,
            "~/configmaps/ssa?fieldManager=two&force=true",
            map(json!({"a": "3", "c": "1"})),
        ),
        step(
            "what is not applied any more goes",
            Apply,
            "~/configmaps/ssa?fieldManager=one",
            map(json!({})),
        ),
        step(
            "an update owns what it changes",
            Merge,
            "~/configmaps/ssa?fieldManager=patcher",
            json!({"data": {"c": "9", "d": "9"}}),
        ),
        step(
            "which conflicts with apply",
            Apply,
            "~/configmaps/ssa?fieldManager=two",
            map(json!({"a": "3", "c": "1"})),
        ),
        step(
            "an unknown field",
            Apply,
            "~/configmaps/ssa?fieldManager=two",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "foo": 1}),
        ),
        step(
            "under another name",
            Apply,
            "~/configmaps/ssa?fieldManager=two",
            config_map("other", json!({})),
        )
        .code(),
        step("read the managers", Get, "~/configmaps/ssa", Value::Null),
        step("a map of nobody", Post, "~/configmaps", config_map("bare", json!({"a": "1"}))),
        step(
            "forget its managers",
            Merge,
            "~/configmaps/bare",
            json!({"metadata": {"managedFields": [{}]}}),
        ),
        step("a change is nobody's", Merge, "~/configmaps/bare", json!({"data": {"b": "1"}})),
        step(
            "until it is applied",
            Apply,
            "~/configmaps/bare?fieldManager=one",
            config_map("bare", json!({"a": "1"})),
        ),
    ]
}

fn custom_applies() -> Vec<Step> {
    use Verb::Apply;
    let apply = |name, manager: &str, spec| {
        step(name, Apply, &format!("@/applied?fieldManager={manager}"), widget("applied", spec))
    };
    vec![
        apply(
            "apply a custom resource",
            "one",
            json!({"color": "red", "tags": ["a"], "parts": [{"name": "a", "count": 1}], "labels": {"x": "1"}}),
        ),
        apply(
            "another manager's items",
            "two",
            json!({"tags": ["b"], "parts": [{"name": "b"}], "labels": {"y": "2"}, "color": "red"}),
        ),
        apply("an item conflicts", "two", json!({"parts": [{"name": "a", "count": 2}]})),
        apply(
            "an item goes",
            "one",
            json!({"color": "red", "tags": ["a", "c"], "labels": {"x": "1"}}),
        ),
        apply("an invalid one", "one", json!({"color": "green"})).reason(),
        apply("an unknown field", "one", json!({"color": "red", "foo": 1})),
        step(
            "apply the status",
            Apply,
            "@/applied/status?fieldManager=st",
            json!({"apiVersion": "conformance.test/v1", "kind": "Widget", "metadata": {"name": "applied"}, "status": {"phase": "Up"}}),
        ),
        get("read it with its managers", "@/applied"),
        step("apply a pod", Apply, "~/pods/applied?fieldManager=one", pod("applied")),
    ]
}

fn deletions() -> Vec<Step> {
    use Verb::{Delete, Merge, Post};
    let finalized = |name: &str| {
        json!({"apiVersion": "conformance.test/v1", "kind": "Widget",
            "metadata": {"name": name, "finalizers": ["test.io/hold"]}, "spec": {"color": "red"}})
    };
    let precondition = |field: &str, value: &str| json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {field: value}});
    vec![
        step(
            "with another uid",
            Delete,
            "~/configmaps/a",
            precondition("uid", "00000000-0000-4000-8000-000000000000"),
        ),
        step(
            "with another version",
            Delete,
            "~/configmaps/a",
            precondition("resourceVersion", "1"),
        ),
        step("dry run", Delete, "~/configmaps/a?dryRun=All", Value::Null),
        step("delete", Delete, "~/configmaps/a", Value::Null),
        get("it is gone", "~/configmaps/a"),
        step("an object with a finalizer", Post, "@", finalized("held")),
        step("is marked", Delete, "@/held", Value::Null),
        step("and marked once", Delete, "@/held", Value::Null),
        step(
            "takes no new finalizer",
            Merge,
            "@/held",
            json!({"metadata": {"finalizers": ["test.io/hold", "test.io/new"]}}),
        ),
        step("can still be changed", Merge, "@/held", json!({"spec": {"replicas": 2}})),
        step("goes with its finalizer", Merge, "@/held", json!({"metadata": {"finalizers": null}})),
        get("now it is gone", "@/held"),
        step("one for foreground deletion", Post, "@", widget("fore", json!({"color": "red"}))),
        step(
            "waits for what it owns",
            Delete,
            "@/fore",
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}),
        ),
        step(
            "a policy that there is not",
            Delete,
            "@/fore",
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Sideways"}),
        )
        .code(),
        step("a claim is protected", Delete, "~/persistentvolumeclaims/c", Value::Null),
        step("a pod on no node goes, but for its finalizer", Delete, "~/pods/p", Value::Null),
        step("a pod on no node goes at once", Delete, "~/pods/applied", Value::Null),
        step("a volume is protected", Delete, "/api/v1/persistentvolumes/conf-v", Value::Null),
        step("a secret", Delete, "~/secrets/s", Value::Null),
        step("a service", Delete, "~/services/svc", Value::Null),
        step("all of a label", Delete, "@?labelSelector=app%3Dw", Value::Null),
        get("the others are there", "@"),
        step("the default namespace", Delete, "/api/v1/namespaces/default", Value::Null),
        step("the namespace", Delete, "/api/v1/namespaces/conf", Value::Null),
        step("takes nothing new", Post, "~/configmaps", config_map("late", json!({}))).reason(),
    ]
}
