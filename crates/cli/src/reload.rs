//! `reload CLUSTER`: a pass of the operator now. It reads Secrets anew, which no watch tells of
//! where the operator may not list them, and whatever it finds changed reaches the agents.

use jiff::Timestamp;
use matriarch_api::annotations::Annotation;
use serde_json::json;

use crate::error::Error;
use crate::session::{Connection, Session};
use crate::text::say;

/// Arguments of `reload`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The cluster.
    pub cluster: String,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// Asks for a pass.
///
/// # Errors
/// If there is no such cluster, or the API refuses.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let name = &arguments.cluster;
    session.cluster(name).await?;
    let key = Annotation::ReloadedAt.key(session.identity);
    let now = Timestamp::now().to_string();
    session.patch_cluster(name, &json!({"metadata": {"annotations": {key: now}}})).await?;
    say(&format!("{name} will be reloaded: the operator looks at its spec and Secrets anew"))
}
