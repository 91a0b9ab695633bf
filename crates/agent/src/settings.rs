//! The directive as the agent last read it, kept on the data volume: an agent that begins while the
//! API is away goes on with it.

use matriarch_api::instance::{InstanceSpec, InstanceStatus, RequestOutcome};
use serde::{Deserialize, Serialize};

use crate::postgres::data;
use crate::root::Root;

/// What the agent knows from the API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Known {
    /// The own directive.
    pub spec: InstanceSpec,
    /// `metadata.generation` of it.
    pub generation: i64,
    /// The own Instance is being deleted.
    pub deleting: bool,
    /// The Cluster is gone or being deleted.
    pub cluster_gone: bool,
    /// The other instances.
    pub peers: Vec<KnownPeer>,
    /// Outcome of the switchover that was reported last.
    pub switchover: Option<RequestOutcome>,
    /// Outcome of the restart that was reported last.
    pub restart: Option<RequestOutcome>,
}

/// Another instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KnownPeer {
    /// Its name.
    pub name: String,
    /// It is being deleted or leaves.
    pub leaving: bool,
    /// Its report.
    pub status: InstanceStatus,
}

impl Known {
    /// What the last agent knew, if it can be read.
    #[must_use]
    pub fn load(root: &Root) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(root.state().join("directive.json")).ok()?).ok()
    }

    /// Keeps it. A full disk is no reason to stop: the next agent then waits for the API.
    pub fn save(&self, root: &Root) {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        if let Err(error) = data::write_atomically(&root.state().join("directive.json"), &bytes) {
            tracing::warn!(
                error = matriarch_api::causes::chain(&error),
                "cannot keep the directive"
            );
        }
    }
}
