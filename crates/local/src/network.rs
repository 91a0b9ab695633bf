//! Addresses of 127.0.0.0/8. Each state directory has a /16 of its own, so that two
//! `matriarch local` can run beside each other.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::layout::{Layout, short_hash, write_file};

/// What goes wrong with addresses.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The file with what was given out cannot be used.
    #[error("cannot use {path}, which records the addresses given out")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// All are taken.
    #[error("all addresses of the range are taken")]
    Exhausted,
}

/// The addresses of one state directory.
#[derive(Debug)]
pub struct Network {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: Record,
    taken: BTreeSet<Ipv4Addr>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    /// Second byte of every address.
    octet: u8,
    /// Where the search for the next pod's address begins.
    next_pod: u16,
}

/// Pods have 127.x.1.0 to 127.x.127.255; the API server gives Services the upper half.
const PODS: std::ops::Range<u16> = 0x0100..0x8000;

impl Network {
    /// Reads what was given out, or chooses a range by the state directory's path.
    pub fn open(layout: &Layout) -> Result<Self, NetworkError> {
        let path = layout.network();
        let failed = |source| NetworkError::Record { path: path.clone(), source };
        let record = match std::fs::read(&path) {
            Ok(content) => serde_json::from_slice(&content)
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Record::new(&layout.root().to_string_lossy())
            }
            Err(error) => return Err(failed(error)),
        };
        let network = Self { path, state: Mutex::new(State { record, taken: BTreeSet::new() }) };
        network.write(&network.state().record.clone())?;
        Ok(network)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, record: &Record) -> Result<(), NetworkError> {
        let content = serde_json::to_vec(record).map_err(io::Error::from);
        content
            .and_then(|content| write_file(&self.path, &content, 0o600))
            .map_err(|source| NetworkError::Record { path: self.path.clone(), source })
    }

    /// Where the API server listens.
    #[must_use]
    pub fn api_server(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.state().record.octet, 0, 1)
    }

    /// The network of Services' addresses, as a number and its prefix length.
    #[must_use]
    pub fn services(&self) -> (u32, u8) {
        let octet = self.state().record.octet;
        (u32::from(Ipv4Addr::new(127, octet, 128, 0)), 17)
    }

    /// The machine's own address.
    #[must_use]
    pub fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.state().record.octet, 0, 2)
    }

    /// Remembers an address that an object has already.
    pub fn keep(&self, address: Ipv4Addr) {
        self.state().taken.insert(address);
    }

    /// Gives an address back; it is not given out again before all others were.
    pub fn give_back(&self, address: Ipv4Addr) {
        self.state().taken.remove(&address);
    }

    /// A new address for a pod.
    pub fn pod(&self) -> Result<Ipv4Addr, NetworkError> {
        let mut state = self.state();
        for _ in PODS {
            let octet = state.record.octet;
            let number = state.record.next_pod.clamp(PODS.start, PODS.end - 1);
            state.record.next_pod = if number + 1 >= PODS.end { PODS.start } else { number + 1 };
            let [third, fourth] = number.to_be_bytes();
            let address = Ipv4Addr::new(127, octet, third, fourth);
            // Addresses that end in 0 or 255 look like mistakes to people.
            if fourth == 0 || fourth == 255 || !state.taken.insert(address) {
                continue;
            }
            let record = state.record.clone();
            drop(state);
            self.write(&record)?;
            return Ok(address);
        }
        Err(NetworkError::Exhausted)
    }
}

impl Record {
    /// 127.0.x.x and 127.1.x.x are what people and distributions use already.
    fn new(path: &str) -> Self {
        let hash = u8::from_str_radix(&short_hash(path)[..2], 16).unwrap_or(0);
        Self { octet: 2 + hash % 252, next_pod: PODS.start }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_given_out_again_at_once_not_even_after_a_restart() {
        let path = std::env::temp_dir().join(format!("m-net-{}", std::process::id()));
        let layout = Layout::make(&path).unwrap();
        let network = Network::open(&layout).unwrap();
        let first = network.pod().unwrap();
        network.give_back(first);
        let second = network.pod().unwrap();
        assert_ne!(first, second);
        let again = Network::open(&layout).unwrap();
        again.keep(second);
        let third = again.pod().unwrap();
        assert!(third != first && third != second);
        assert_eq!(first.octets()[1], again.api_server().octets()[1]);
        assert!(third.octets()[2] < 128, "{third}");
        std::fs::remove_dir_all(path).unwrap();
    }
}
