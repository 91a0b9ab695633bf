//! One port of one Service: connections go to an endpoint chosen when they are made.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Where connections may go.
pub(super) type Endpoints = Arc<BTreeSet<SocketAddr>>;

/// A listening port.
#[derive(Debug)]
pub(super) struct Relay {
    endpoints: watch::Sender<Endpoints>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on a Service's own address while there are endpoints: without, connections are
    /// refused, as kube-proxy does it.
    pub(super) fn listen(address: SocketAddr) -> Self {
        let (endpoints, receiver) = watch::channel(Endpoints::default());
        Self { endpoints, task: tokio::spawn(listen(address, receiver)) }
    }

    /// Serves a port that is held already, so that nobody else takes it: without endpoints,
    /// connections are reset.
    pub(super) fn serve(listener: TcpListener) -> Self {
        let (endpoints, receiver) = watch::channel(Endpoints::default());
        Self {
            endpoints,
            task: tokio::spawn(async move { serve(&listener, receiver, false).await }),
        }
    }

    /// Replaces the endpoints; connections to those that left are closed.
    pub(super) fn set(&self, wanted: &Endpoints) {
        self.endpoints.send_if_modified(|endpoints| {
            let changed = endpoints != wanted;
            if changed {
                *endpoints = wanted.clone();
            }
            changed
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(address: SocketAddr, mut endpoints: watch::Receiver<Endpoints>) {
    let mut reported = false;
    loop {
        if endpoints.wait_for(|endpoints| !endpoints.is_empty()).await.is_err() {
            return;
        }
        match TcpListener::bind(address).await {
            Ok(listener) => serve(&listener, endpoints.clone(), true).await,
            Err(error) => {
                if !reported {
                    reported = true;
                    tracing::warn!(%address, %error, "a Service cannot listen");
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Accepts connections, until no endpoint is left if `while_endpoints`.
async fn serve(
    listener: &TcpListener,
    endpoints: watch::Receiver<Endpoints>,
    while_endpoints: bool,
) {
    let mut left = endpoints.clone();
    let turn = AtomicUsize::new(0);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let chosen = choose(&endpoints.borrow(), turn.fetch_add(1, Ordering::Relaxed));
                    match chosen {
                        Some(server) => drop(tokio::spawn(relay(client, server, endpoints.clone()))),
                        None => reset(&client),
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            },
            () = emptied(&mut left), if while_endpoints => return,
        }
    }
}

/// Waits until there is no endpoint.
async fn emptied(endpoints: &mut watch::Receiver<Endpoints>) {
    // An error means that the relay is gone, and with it its endpoints.
    let _ = endpoints.wait_for(|endpoints| endpoints.is_empty()).await;
}

fn choose(endpoints: &BTreeSet<SocketAddr>, turn: usize) -> Option<SocketAddr> {
    endpoints.iter().nth(turn.checked_rem(endpoints.len())?).copied()
}

/// Carries bytes both ways until one side has had enough or the endpoint leaves.
async fn relay(
    mut client: TcpStream,
    address: SocketAddr,
    mut endpoints: watch::Receiver<Endpoints>,
) {
    let Ok(mut server) = TcpStream::connect(address).await else {
        reset(&client);
        return;
    };
    // Errors would mean that a side has gone already, which the copy notices.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let left = tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut server) => copied.is_err(),
        _ = endpoints.wait_for(|endpoints| !endpoints.contains(&address)) => true,
    };
    if left {
        reset(&client);
        reset(&server);
    }
}

/// Makes the end of the connection visible at once, as a reset, whatever is still unsent.
fn reset(stream: &TcpStream) {
    // An error would mean that it is closed already.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn server(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.write_all(name.as_bytes()).await.unwrap();
                    let _ = stream.read(&mut [0; 16]).await;
                });
            }
        });
        (address, task)
    }

    async fn greeting(stream: &mut TcpStream) -> String {
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        for _ in 0..100 {
            if let Ok(stream) = TcpStream::connect(address).await {
                return stream;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody listens on {address}");
    }

    #[tokio::test]
    async fn a_connection_ends_when_its_endpoint_leaves_and_new_ones_go_elsewhere() {
        let (one, first) = server("one").await;
        let (two, second) = server("two").await;
        let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = held.local_addr().unwrap();
        drop(held);
        let relay = Relay::listen(address);
        assert!(TcpStream::connect(address).await.is_err(), "no endpoint: refused");
        relay.set(&Arc::new(BTreeSet::from([one])));
        let mut stream = connect(address).await;
        assert_eq!(greeting(&mut stream).await, "one");
        relay.set(&Arc::new(BTreeSet::from([two])));
        let ended = stream.read(&mut [0; 1]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        let mut stream = connect(address).await;
        assert_eq!(greeting(&mut stream).await, "two");
        relay.set(&Endpoints::default());
        sleep(Duration::from_millis(50)).await;
        assert!(TcpStream::connect(address).await.is_err(), "no endpoint: refused");
        first.abort();
        second.abort();
    }

    #[test]
    fn endpoints_take_turns() {
        let endpoints: BTreeSet<SocketAddr> =
            ["127.0.0.1:1", "127.0.0.1:2"].iter().map(|text| text.parse().unwrap()).collect();
        assert_ne!(choose(&endpoints, 0), choose(&endpoints, 1));
        assert_eq!(choose(&BTreeSet::new(), 1), None);
    }
}
