//! The kubeconfig of one state directory.

use std::path::Path;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::layout::{Layout, LayoutError, write_file};

/// Why the running `matriarch local` cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The state directory cannot be used.
    #[error("cannot use the state directory")]
    Layout(#[from] LayoutError),
    /// Nobody runs.
    #[error("nothing runs on {0}: start it with `matriarch local up FILE`")]
    NotRunning(std::path::PathBuf),
    /// The kubeconfig cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// No client can be made from it.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<kube::Error>),
}

/// Writes the kubeconfig for whoever may read the state directory.
pub fn write(
    layout: &Layout,
    server: std::net::SocketAddr,
    ca: &str,
    token: &str,
) -> std::io::Result<()> {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    // JSON is YAML as well.
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "matriarch-local",
        "clusters": [{
            "name": "matriarch-local",
            "cluster": {"server": format!("https://{server}"), "certificate-authority-data": ca},
        }],
        "users": [{"name": "matriarch-local", "user": {"token": token}}],
        "contexts": [{
            "name": "matriarch-local",
            "context": {
                "cluster": "matriarch-local", "user": "matriarch-local", "namespace": "default",
            },
        }],
    });
    write_file(&layout.kubeconfig(), pretty(&content).as_bytes(), 0o600)
}

fn pretty(content: &Value) -> String {
    format!("{content:#}\n")
}

/// A client of the `matriarch local` that runs on a state directory.
pub async fn connect(state: &Path) -> Result<(Layout, Client), ConnectError> {
    let layout = Layout::open(state)?;
    if layout.owner()?.is_none() {
        return Err(ConnectError::NotRunning(layout.root().to_owned()));
    }
    let path = layout.kubeconfig();
    let failed = |source| ConnectError::Read { path: path.clone(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(&path).map_err(failed)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(failed)?;
    let client =
        Client::try_from(config).map_err(|source| ConnectError::Client(Box::new(source)))?;
    Ok((layout, client))
}
