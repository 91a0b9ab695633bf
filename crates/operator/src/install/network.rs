//! Who may reach the operator and the database pods, and what they may reach.

use matriarch_api::labels::{self, Label};
use matriarch_api::names::{AGENT_PORT, METRICS_PORT as DATABASE_METRICS_PORT, POSTGRES_PORT};
use serde_json::{Value, json};

use super::{AGENT_PORT as OPERATOR_AGENT_PORT, METRICS_PORT, Options};

/// Name of the policy of database pods.
pub const CLUSTER_POLICY: &str = "matriarch-instances";

/// Ports of API servers, behind the Service `kubernetes`: policies are asked after the address has
/// been translated. Its addresses are outside the pods' network, where no selector reaches.
const API_SERVER_PORTS: [u16; 4] = [443, 6443, 8443, 16443];
const DNS_PORT: u16 = 53;

fn tcp(ports: &[u16]) -> Vec<Value> {
    ports.iter().map(|port| json!({ "port": port, "protocol": "TCP" })).collect()
}

/// The operator talks to the API server alone, is asked for metrics and health, and agents get its
/// program from it.
pub fn operator_policy(options: &Options) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": options.metadata(),
        "spec": {
            "podSelector": { "matchLabels": options.selector() },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "ports": tcp(&[METRICS_PORT, OPERATOR_AGENT_PORT]) }],
            "egress": [{ "ports": tcp(&API_SERVER_PORTS) }],
        },
    })
}

/// Database pods of a namespace: clients reach PostgreSQL from anywhere (pg_hba decides), peers the
/// agents, monitoring the metrics; kubelet's probes are never subject to policies. They reach each
/// other, the API server, the operator for its program, and DNS.
pub fn cluster_policy(options: &Options, namespace: &str) -> Value {
    let mut metadata = options.metadata_named(CLUSTER_POLICY);
    metadata["namespace"] = json!(namespace);
    let role = Label::PodRole.key(options.identity);
    let instances = json!({ "matchLabels": { role: labels::POD_ROLE_INSTANCE } });
    let operator = json!({ "matchLabels": options.selector() });
    let dns = json!([
        { "port": DNS_PORT, "protocol": "UDP" },
        { "port": DNS_PORT, "protocol": "TCP" },
    ]);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": instances,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                { "ports": tcp(&[POSTGRES_PORT, DATABASE_METRICS_PORT]) },
                { "from": [{ "podSelector": instances }], "ports": tcp(&[AGENT_PORT]) },
            ],
            "egress": [
                { "to": [{ "podSelector": instances }], "ports": tcp(&[POSTGRES_PORT, AGENT_PORT]) },
                { "ports": tcp(&API_SERVER_PORTS) },
                { "to": [{ "namespaceSelector": {}, "podSelector": operator }], "ports": tcp(&[OPERATOR_AGENT_PORT]) },
                { "ports": dns },
            ],
        },
    })
}
