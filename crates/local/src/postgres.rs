//! The PostgreSQL servers installed on this machine, and which of them an image name asks for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian, Red Hat and source installations put each major version's programs.
const PLACES: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// What goes wrong when a server is looked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PostgresError {
    /// The image's tag has no major version.
    #[error(
        "the image {0} does not say which PostgreSQL it holds: on one machine its tag must begin \
         with a major version, as in ghcr.io/cloudnative-pg/postgresql:17"
    )]
    NoMajor(String),
    /// That major is not installed.
    #[error(
        "PostgreSQL {major} is not installed ({installed}): install it (apt-get install \
         postgresql-{major}) or ask for another in spec.imageName"
    )]
    NotInstalled {
        /// The major version asked for.
        major: u32,
        /// What there is, in words.
        installed: String,
    },
}

/// Directories with PostgreSQL's programs, by major version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstalledServers {
    by_major: BTreeMap<u32, PathBuf>,
}

impl InstalledServers {
    /// Looks at the usual places.
    #[must_use]
    pub fn find() -> Self {
        let mut by_major = BTreeMap::new();
        for (place, prefix) in PLACES {
            let Ok(entries) = fs::read_dir(place) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let major = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
                let programs = entry.path().join("bin");
                if let Some(major) = major
                    && programs.join("postgres").is_file()
                    && programs.join("initdb").is_file()
                {
                    by_major.entry(major).or_insert(programs);
                }
            }
        }
        Self { by_major }
    }

    /// The directory of `major`'s programs.
    pub fn programs(&self, major: u32) -> Result<&Path, PostgresError> {
        self.by_major
            .get(&major)
            .map(PathBuf::as_path)
            .ok_or_else(|| PostgresError::NotInstalled { major, installed: self.describe() })
    }

    /// The directory of the programs that `image` asks for.
    pub fn for_image(&self, image: &str) -> Result<&Path, PostgresError> {
        let major = major_of(image).ok_or_else(|| PostgresError::NoMajor(image.to_owned()))?;
        self.programs(major)
    }

    /// The newest one.
    #[must_use]
    pub fn newest(&self) -> Option<u32> {
        self.by_major.last_key_value().map(|(major, _)| *major)
    }

    /// What is installed, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.by_major.is_empty() {
            return "no PostgreSQL server is".to_owned();
        }
        let majors: Vec<String> = self.by_major.keys().map(u32::to_string).collect();
        format!("installed: {}", majors.join(", "))
    }
}

/// The major version in an image's tag: `…/postgresql:17.6-standard-bookworm` is 17.
#[must_use]
pub fn major_of(image: &str) -> Option<u32> {
    let without_digest = image.split('@').next()?;
    let (_, tag) = without_digest.rsplit_once(':')?;
    let digits: String = tag.chars().take_while(char::is_ascii_digit).collect();
    let major = digits.parse().ok()?;
    (9..100).contains(&major).then_some(major)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_selects_the_major() {
        assert_eq!(major_of("ghcr.io/cloudnative-pg/postgresql:17"), Some(17));
        assert_eq!(
            major_of("localhost:5000/postgresql:16.4-standard-bookworm@sha256:ab"),
            Some(16)
        );
        assert_eq!(major_of("postgres:18beta1"), Some(18));
        assert_eq!(major_of("postgres:latest"), None);
        assert_eq!(major_of("localhost:5000/postgres"), None);
        assert_eq!(major_of("postgres"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_the_cure() {
        let none = InstalledServers::default();
        let text = none.for_image("postgres:17").unwrap_err().to_string();
        assert!(text.contains("apt-get install postgresql-17"), "{text}");
        assert!(matches!(none.for_image("postgres:latest"), Err(PostgresError::NoMajor(_))));
    }
}
