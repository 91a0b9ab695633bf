//! Versions of PostgreSQL, and what each major has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A major version of PostgreSQL that is handled. Serialised as its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Major {
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

impl Major {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [Self::V14, Self::V15, Self::V16, Self::V17, Self::V18];

    /// The number, as in `PG_VERSION`.
    pub const fn number(self) -> u32 {
        match self {
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    /// `log_destination = jsonlog` (from 15; release notes of 15, "Monitoring").
    pub fn has_jsonlog(self) -> bool {
        self >= Self::V15
    }

    /// `allow_alter_system` (from 17); before, only the file's mode keeps ALTER SYSTEM out.
    pub fn has_allow_alter_system(self) -> bool {
        self >= Self::V17
    }

    /// `sync_replication_slots` and `synchronized_standby_slots` (from 17).
    pub fn has_sync_replication_slots(self) -> bool {
        self >= Self::V17
    }

    /// `summarize_wal`, for incremental backups (from 17).
    pub fn has_summarize_wal(self) -> bool {
        self >= Self::V17
    }

    /// `transaction_timeout` (from 17).
    pub fn has_transaction_timeout(self) -> bool {
        self >= Self::V17
    }

    /// `idle_replication_slot_timeout` (from 18).
    pub fn has_idle_replication_slot_timeout(self) -> bool {
        self >= Self::V18
    }

    /// `io_method` (from 18).
    pub fn has_io_method(self) -> bool {
        self >= Self::V18
    }

    /// `max_active_replication_origins` (from 18; before, `max_replication_slots` counted).
    pub fn has_max_active_replication_origins(self) -> bool {
        self >= Self::V18
    }

    /// `extension_control_path` (from 18).
    pub fn has_extension_control_path(self) -> bool {
        self >= Self::V18
    }

    /// initdb switches data checksums on unless told otherwise (from 18); before, only
    /// `--data-checksums` does.
    pub fn checksums_by_default(self) -> bool {
        self >= Self::V18
    }

    /// `initdb --no-data-checksums` exists (from 18).
    pub fn has_no_data_checksums_option(self) -> bool {
        self >= Self::V18
    }

    /// initdb knows the locale provider `icu` (from 15).
    pub fn has_icu_provider(self) -> bool {
        self >= Self::V15
    }

    /// initdb knows `--icu-rules` (from 16).
    pub fn has_icu_rules(self) -> bool {
        self >= Self::V16
    }

    /// initdb knows the locale provider `builtin` (from 17).
    pub fn has_builtin_provider(self) -> bool {
        self >= Self::V17
    }

    /// `initdb --set NAME=VALUE` (from 16).
    pub fn has_initdb_set(self) -> bool {
        self >= Self::V16
    }

    /// Regular expressions for databases and users in pg_hba.conf, and `include` there
    /// (from 16).
    pub fn has_hba_regular_expressions(self) -> bool {
        self >= Self::V16
    }

    /// `promote_trigger_file` (until 15).
    pub fn has_promote_trigger_file(self) -> bool {
        self <= Self::V15
    }

    /// `stats_temp_directory` (until 14).
    pub fn has_stats_temp_directory(self) -> bool {
        self <= Self::V14
    }

    /// Functions `pg_backup_start` and `pg_backup_stop` (from 15); before, `pg_start_backup`
    /// and `pg_stop_backup`.
    pub fn has_pg_backup_start(self) -> bool {
        self >= Self::V15
    }

    /// `pg_rewind --config-file` (from 15); before, postgresql.conf must be in the data
    /// directory.
    pub fn has_rewind_config_file(self) -> bool {
        self >= Self::V15
    }

    /// Everybody may create objects in schema public (until 14).
    pub fn public_schema_is_writable(self) -> bool {
        self <= Self::V14
    }

    /// The predefined role `pg_use_reserved_connections` and `reserved_connections` (from 16).
    pub fn has_reserved_connections(self) -> bool {
        self >= Self::V16
    }

    /// MD5 password hashes bring a warning (from 18).
    pub fn warns_of_md5(self) -> bool {
        self >= Self::V18
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// A version that cannot be read or is not handled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// There is no version in the text.
    #[error("{text:?} does not name a version of PostgreSQL")]
    Syntax {
        /// What was given.
        text: String,
    },
    /// A version, but none that is handled.
    #[error("PostgreSQL {major} is not handled: 14 to 18 are")]
    Unsupported {
        /// The major version that was named.
        major: u32,
    },
}

impl TryFrom<u32> for Major {
    type Error = VersionError;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::ALL
            .into_iter()
            .find(|major| major.number() == number)
            .ok_or(VersionError::Unsupported { major: number })
    }
}

impl From<Major> for u32 {
    fn from(major: Major) -> Self {
        major.number()
    }
}

impl FromStr for Major {
    type Err = VersionError;

    /// The content of `PG_VERSION`: the number and perhaps a line break.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let digits = !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| trimmed.parse::<u32>().ok())
            .flatten()
            .ok_or_else(|| VersionError::Syntax { text: text.to_owned() })?
            .try_into()
    }
}

/// A version of PostgreSQL, e.g. 17.6. Serialised as that string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// 17 of 17.6.
    pub major: Major,
    /// 6 of 17.6; 0 for development, beta and candidate releases.
    pub minor: u32,
}

impl Version {
    /// From `server_version_num`: 170006 is 17.6.
    pub fn from_server_version_num(number: u32) -> Result<Self, VersionError> {
        Ok(Self { major: Major::try_from(number / 10_000)?, minor: number % 10_000 })
    }

    /// As `server_version_num` has it.
    pub const fn server_version_num(self) -> u32 {
        self.major.number() * 10_000 + self.minor
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The leading digits of `text` as a number, and what follows them.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    Some((text.get(..end)?.parse().ok()?, text.get(end..)?))
}

impl FromStr for Version {
    type Err = VersionError;

    /// From `17.6`, `17.6 (Debian 17.6-1.pgdg12+1)` (`server_version`), `PostgreSQL 17.6 on …`
    /// (`version()`), `postgres (PostgreSQL) 17.6` (`postgres --version`), `18beta1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || VersionError::Syntax { text: text.to_owned() };
        let word = text
            .split_ascii_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .ok_or_else(syntax)?;
        let (major, rest) = leading_number(word).ok_or_else(syntax)?;
        // `server_version_num` is told apart by its length: no major has six digits.
        if rest.is_empty() && word.len() >= 5 {
            return Self::from_server_version_num(major);
        }
        let minor = match rest.strip_prefix('.') {
            Some(minor) => leading_number(minor).ok_or_else(syntax)?.0,
            None if rest.is_empty() => 0,
            None => {
                let pre = ["devel", "alpha", "beta", "rc"];
                let known = pre.iter().any(|word| rest.starts_with(word));
                known.then_some(0).ok_or_else(syntax)?
            }
        };
        Ok(Self { major: Major::try_from(major)?, minor })
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_version_is_read() {
        for (text, expected) in [
            ("17.6", "17.6"),
            ("17.6 (Debian 17.6-1.pgdg12+1)", "17.6"),
            ("PostgreSQL 17.6 on x86_64-pc-linux-gnu, compiled by gcc 12.2.0, 64-bit", "17.6"),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", "15.18"),
            ("pg_controldata (PostgreSQL) 14.2", "14.2"),
            ("18beta1", "18.0"),
            ("18rc1", "18.0"),
            ("18devel", "18.0"),
            ("16", "16.0"),
            ("170006", "17.6"),
        ] {
            assert_eq!(text.parse::<Version>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_version_that_is_not_handled_is_told_from_none() {
        assert_eq!("13.4".parse::<Version>(), Err(VersionError::Unsupported { major: 13 }));
        assert_eq!("19.0".parse::<Version>(), Err(VersionError::Unsupported { major: 19 }));
        for text in ["", "PostgreSQL", "17x", "17.", "99999999999"] {
            let read = text.parse::<Version>();
            assert!(matches!(read, Err(VersionError::Syntax { .. })), "{text}: {read:?}");
        }
        assert_eq!("15\n".parse(), Ok(Major::V15));
        assert!("15.1".parse::<Major>().is_err());
    }

    proptest! {
        #[test]
        fn numbers_and_text_round_trip(major in 14u32..=18, minor in 0u32..10_000) {
            let version = Version { major: Major::try_from(major).unwrap(), minor };
            prop_assert_eq!(Version::from_server_version_num(version.server_version_num()), Ok(version));
            prop_assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<Version>();
            let _ = text.parse::<Major>();
        }
    }
}
