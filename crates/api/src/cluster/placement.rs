//! `spec.affinity`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeAffinity, PodAffinity, PodAntiAffinity, Toleration};

use crate::record::{record, words};

record! {
    /// On which nodes pods run.
    pub struct Affinity {
        /// Do instances of one cluster keep apart.
        enable_pod_anti_affinity "enablePodAntiAffinity": Option<bool>,
        /// Label of nodes that says what apart means.
        topology_key "topologyKey": Option<String>,
        /// Labels of nodes.
        node_selector "nodeSelector": BTreeMap<String, String>,
        /// Rules about nodes.
        node_affinity "nodeAffinity": Option<NodeAffinity>,
        /// Taints of nodes that are tolerated.
        tolerations "tolerations": Vec<Toleration>,
        /// Must instances keep apart, or should they.
        pod_anti_affinity_type "podAntiAffinityType": Option<PodAntiAffinityType>,
        /// More rules about pods to keep away from.
        additional_pod_anti_affinity "additionalPodAntiAffinity": Option<PodAntiAffinity>,
        /// More rules about pods to be near to.
        additional_pod_affinity "additionalPodAffinity": Option<PodAffinity>,
    }
}

words! {
    /// Must instances keep apart, or should they.
    pub enum PodAntiAffinityType {
        /// They should.
        Preferred = "preferred",
        /// They must.
        Required = "required",
    }
}
