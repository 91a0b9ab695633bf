//! The identity of a database system.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number that initdb gives to a database system and that all its standbys share
/// (`system_identifier` in `src/include/catalog/pg_control.h`).
///
/// Serialised as a decimal string: JSON numbers lose digits beyond 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SystemId(pub u64);

/// Text is not a system identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a system identifier: a decimal number is expected")]
pub struct ParseSystemIdError {
    /// What was given.
    pub text: String,
}

impl FromStr for SystemId {
    type Err = ParseSystemIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| ParseSystemIdError { text: text.to_owned() })
    }
}

impl TryFrom<String> for SystemId {
    type Error = ParseSystemIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SystemId> for String {
    fn from(id: SystemId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_decimal_digits_are_a_system_identifier() {
        assert_eq!("7573141229387595814".parse(), Ok(SystemId(7_573_141_229_387_595_814)));
        for text in ["", "+1", "-1", "0x1", "1 ", "99999999999999999999"] {
            assert!(text.parse::<SystemId>().is_err(), "{text:?} was taken");
        }
    }
}
