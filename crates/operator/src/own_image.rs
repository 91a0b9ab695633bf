//! The image that this process runs from. The pods' init containers copy the program out of the
//! same one, and whoever changes the image of the Deployment should not have to say it twice.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use crate::install::CONTAINER;

/// The own image is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The own pod cannot be read.
    #[error("cannot read the own pod {namespace}/{pod} to learn the image; give --operator-image")]
    Unreadable {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The pod is made in a way of its own.
    #[error("the own pod {namespace}/{pod} has no container {CONTAINER}; give --operator-image")]
    NoContainer {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
}

/// The image of the operator's container in this pod.
///
/// # Errors
/// If the pod cannot be read, or has no such container.
pub async fn own_image(client: &Client, namespace: &str, pod: &str) -> Result<String, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let own = api.get(pod).await.map_err(|source| Error::Unreadable {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        source: Box::new(source),
    })?;
    let containers = own.spec.map(|spec| spec.containers).unwrap_or_default();
    let own = containers.into_iter().find(|container| container.name == CONTAINER);
    own.and_then(|container| container.image)
        .ok_or_else(|| Error::NoContainer { namespace: namespace.to_owned(), pod: pod.to_owned() })
}
