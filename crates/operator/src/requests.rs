//! How many requests are on their way at once.

use kube::Client;
use tower::limit::ConcurrencyLimit;

/// So many of all passes together; a pass alone makes some twenty-five. Each that is on its way is a
/// TLS connection more, and they are what kept the leader from renewing its Lease where the API
/// server had little processor time (docs/benchmarks.md, many clusters).
const AT_ONCE: usize = 32;

/// A client whose requests wait for one another. Watches and the leader's Lease have the other one:
/// they must not stand in this queue.
pub fn in_turn(client: &Client) -> Client {
    let inner = client.clone();
    let send = tower::service_fn(move |request| {
        let client = inner.clone();
        async move { client.send(request).await }
    });
    Client::new(ConcurrencyLimit::new(send, AT_ONCE), client.default_namespace())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn no_more_than_so_many_are_on_their_way_and_all_are_answered() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (under_way, highest) = (now.clone(), most.clone());
        let server = tower::service_fn(move |_: Request<Body>| {
            let (now, most) = (under_way.clone(), highest.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                let found = br#"{"metadata": {"name": "found"}}"#;
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(found.to_vec())))
            }
        });
        let api: Api<ConfigMap> = Api::default_namespaced(in_turn(&Client::new(server, "default")));
        let answers = join_all((0..200).map(|_| api.get("found"))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    }
}
