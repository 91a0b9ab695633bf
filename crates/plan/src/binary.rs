//! The agent's binary that an operator offers, and what became of it in an instance.

use serde::{Deserialize, Serialize};

/// A binary that agents are to run. What counts is its hash; the rest says how to get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentBinary {
    /// Version, for people.
    pub version: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Length of the file.
    pub bytes: u64,
    /// For which processors, as Rust names them (`x86_64`, `aarch64`).
    pub architecture: String,
    /// Where it is served.
    pub url: String,
    /// SHA-256 of the server's certificate, hexadecimal.
    pub certificate_sha256: String,
}

/// What an agent says of its own binary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentFacts {
    /// SHA-256 of the file that it runs from; none until it has been read.
    pub sha256: Option<String>,
    /// It was put into place lately, and is taken back if the agent dies again and again.
    pub trial: bool,
    /// Why it does not run from the one that it was told of.
    pub failure: Option<BinaryFailure>,
}

/// Why an agent does not run from a binary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BinaryFailure {
    /// SHA-256 of that binary.
    pub sha256: String,
    /// PascalCase.
    pub reason: String,
    /// For a person.
    pub message: String,
}

impl AgentFacts {
    /// It runs from this binary, and has done so for a while.
    #[must_use]
    pub fn runs(&self, binary: &AgentBinary) -> bool {
        !self.trial && self.sha256.as_ref() == Some(&binary.sha256)
    }

    /// Why it does not run from this binary, if it says so.
    #[must_use]
    pub fn failure_of(&self, binary: &AgentBinary) -> Option<&BinaryFailure> {
        self.failure.as_ref().filter(|failure| failure.sha256 == binary.sha256)
    }
}
