//! What tells the lives of one container apart, and the proof of its end.
//!
//! A process does not learn the id that the runtime gave its container, and what the pod's status
//! says of it may be of the container before. So the keeper makes an id of its own and writes it
//! where kubelet looks for a container's last words: kubelet reads that file of exactly the
//! container that ended and reports it with the end
//! (<https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>).
//! Rule 20 compares it with the id in the Lease.

use matriarch_plan::protocol::ContainerId;

use crate::root::Root;

/// How the agent learns the id from the keeper.
const VARIABLE: &str = "MATRIARCH_CONTAINER";

/// A new id, for the keeper's life.
#[must_use]
pub fn new_id() -> ContainerId {
    ContainerId(format!("keeper-{:032x}", rand::random::<u128>()))
}

/// The keeper's own variable for the agent that it starts.
#[must_use]
pub fn variable(id: &ContainerId) -> (&'static str, &str) {
    (VARIABLE, &id.0)
}

/// The id that the keeper gave. None if something else started this process.
#[must_use]
pub fn given() -> Option<ContainerId> {
    std::env::var(VARIABLE).ok().filter(|id| !id.is_empty()).map(ContainerId)
}

/// Writes the id, and later the reason of an end, where kubelet reads a container's last words.
///
/// # Errors
/// If there is no such file: then a death cannot be proved by it, and everything else goes on.
pub fn write_last_words(
    root: &Root,
    id: &ContainerId,
    reason: Option<&str>,
) -> std::io::Result<()> {
    let path = root.termination_log();
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, id.last_words(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_name_the_container_and_the_reason() {
        let place =
            std::env::temp_dir().join(format!("matriarch-container-{}", std::process::id()));
        let root = Root::new(&place);
        let id = new_id();
        assert_ne!(id, new_id());
        write_last_words(&root, &id, None).unwrap();
        let read = || std::fs::read_to_string(root.termination_log()).unwrap();
        assert_eq!(read(), format!("container {}\n", id.0));
        write_last_words(&root, &id, Some("cannot wait for events")).unwrap();
        assert_eq!(read(), format!("container {}\ncannot wait for events\n", id.0));
        std::fs::remove_dir_all(place).unwrap();
    }
}
