//! The operator's pods and what belongs to them.

use serde_json::{Value, json};

use super::{AGENT_PORT, CONTAINER, METRICS_PORT, OWN_NAMESPACE, Options, Scope};

/// A user id of no special meaning: Kubernetes wants a number where it must not be root.
const USER: u32 = 65_532;

/// The operator's namespace, with the strictest Pod Security enforced.
pub fn namespace(options: &Options) -> Value {
    let mut metadata = options.metadata_named(&options.namespace);
    metadata["labels"]["pod-security.kubernetes.io/enforce"] = json!("restricted");
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
}

/// Who the operator is.
pub fn service_account(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": options.metadata(),
        "automountServiceAccountToken": false,
    })
}

/// The operators.
pub fn deployment(options: &Options) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": options.metadata(),
        "spec": {
            "replicas": options.replicas,
            "selector": { "matchLabels": options.selector() },
            "template": {
                "metadata": { "labels": options.labels() },
                "spec": pod(options),
            },
        },
    })
}

fn pod(options: &Options) -> Value {
    let mut pod = json!({
        "serviceAccountName": options.name(),
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "affinity": { "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 100,
                "podAffinityTerm": {
                    "labelSelector": { "matchLabels": options.selector() },
                    "topologyKey": "kubernetes.io/hostname",
                },
            }],
        }},
        "containers": [container(options)],
    });
    if let Some(class) = &options.priority_class {
        pod["priorityClassName"] = json!(class);
    }
    pod
}

fn container(options: &Options) -> Value {
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    json!({
        "name": CONTAINER,
        "image": options.image,
        "command": ["/matriarch"],
        "args": arguments(options),
        "env": [field("POD_NAME", "metadata.name"), field("NAMESPACE", "metadata.namespace")],
        "ports": [
            { "name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP" },
            { "name": "agents", "containerPort": AGENT_PORT, "protocol": "TCP" },
        ],
        "livenessProbe": probe("/healthz", 10),
        "readinessProbe": probe("/readyz", 5),
        "resources": {
            "requests": { "cpu": "50m", "memory": "64Mi" },
            "limits": { "memory": "256Mi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
        },
    })
}

fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = vec![
        "operator".to_owned(),
        format!("--api-identity={}", options.identity),
        "--leader-elect".to_owned(),
        format!("--metrics-address=[::]:{METRICS_PORT}"),
        format!("--agent-url=https://{}.{OWN_NAMESPACE}.svc:{AGENT_PORT}", options.name()),
        format!("--agent-listen=[::]:{AGENT_PORT}"),
    ];
    match &options.scope {
        Scope::ClusterWide => {}
        Scope::Namespaces(names) if *names == [options.namespace.clone()] => {
            arguments.push(format!("--watch-namespace={OWN_NAMESPACE}"));
        }
        Scope::Namespaces(names) => {
            arguments.push(format!("--watch-namespace={}", names.join(",")));
        }
    }
    if let Some(image) = &options.postgres_image {
        arguments.push(format!("--postgres-image={image}"));
    }
    if let Some(domain) = &options.cluster_domain {
        arguments.push(format!("--cluster-domain={domain}"));
    }
    arguments
}

fn probe(path: &str, period: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": "metrics" },
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    })
}

/// A drain takes one operator at a time, and a single one at once: no failover waits for it.
pub fn disruption_budget(options: &Options) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": options.metadata(),
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": options.selector() } },
    })
}

/// Where metrics are, and the program for agents.
pub fn service(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": options.metadata(),
        "spec": {
            "type": "ClusterIP",
            "selector": options.selector(),
            "ports": [
                {
                    "name": "metrics",
                    "port": METRICS_PORT,
                    "targetPort": "metrics",
                    "protocol": "TCP",
                },
                {
                    "name": "agents",
                    "port": AGENT_PORT,
                    "targetPort": "agents",
                    "protocol": "TCP",
                },
            ],
        },
    })
}

/// Tells the Prometheus operator where they are.
pub fn service_monitor(options: &Options) -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": options.metadata(),
        "spec": {
            "selector": { "matchLabels": options.selector() },
            "endpoints": [{ "port": "metrics", "path": "/metrics" }],
        },
    })
}

/// Agents renew their clusters' Leases every two seconds: their requests stand beside the system's
/// own leader elections, and wait for no other workload (traps K9). Flows are told apart by user, so
/// that one account's flood is its own.
pub fn flow_schema(options: &Options) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": options.metadata_named(&format!("{}-leases", options.name())),
        "spec": {
            "priorityLevelConfiguration": { "name": "leader-election" },
            "matchingPrecedence": 500,
            "distinguisherMethod": { "type": "ByUser" },
            "rules": [{
                "subjects": [{ "kind": "Group", "group": { "name": "system:serviceaccounts" } }],
                "resourceRules": [{
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "namespaces": ["*"],
                    "verbs": ["get", "create", "update", "patch"],
                }],
            }],
        },
    })
}
