//! Errors as text.

use std::error::Error;

use kube_core::Status;

/// An error with its causes, in one line. A cause whose words the line has already is left out:
/// some errors of libraries print their sources themselves. An answer of the Kubernetes API is
/// told by its message alone; the client's error around it would print the whole object.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        if next.and_then(answer).is_some() {
            continue;
        }
        let words = answer(error).map_or_else(|| error.to_string(), message);
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

/// The API's answer, as the client carries it: in a box.
fn answer<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Status> {
    let boxed = error.downcast_ref::<Box<Status>>().map(AsRef::as_ref);
    boxed.or_else(|| error.downcast_ref::<Status>())
}

fn message(status: &Status) -> String {
    if status.message.is_empty() {
        return format!("the API server answered {} {}", status.code, status.reason);
    }
    status.message.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of the client's own error.
    #[derive(Debug, thiserror::Error)]
    #[error("ApiError: {0} ({0:?})")]
    struct Refused(#[source] Box<Status>);

    #[derive(Debug, thiserror::Error)]
    #[error("a.yaml: Cluster c was refused")]
    struct Apply(#[source] Refused);

    #[test]
    fn an_answer_of_the_api_is_its_message() {
        let status = Status::failure("spec.instances must be a number", "Invalid");
        let said = chain(&Apply(Refused(status.boxed())));
        assert_eq!(said, "a.yaml: Cluster c was refused: spec.instances must be a number");
        let silent = Status::failure("", "Conflict").with_code(409);
        let said = chain(&Refused(silent.boxed()));
        assert_eq!(said, "the API server answered 409 Conflict");
    }

    #[test]
    fn what_an_error_says_of_its_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read: {0}")]
        struct Reading(#[source] std::io::Error);
        let said = chain(&Reading(std::io::Error::other("no such disk")));
        assert_eq!(said, "cannot read: no such disk");
    }
}
