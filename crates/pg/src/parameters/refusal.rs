//! Parameters that a user may not set, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::units;
use crate::conf::is_parameter_name;
use crate::version::Major;

/// Who sets a parameter instead of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// ALTER SYSTEM.
    AlterSystem,
    /// The WAL archive.
    Archive,
    /// Certificates and keys.
    Certificates,
    /// What makes a server damage its data or its catalogs more easily.
    Danger,
    /// Where files lie.
    Files,
    /// What identifies the instance.
    Identity,
    /// Libraries.
    Libraries,
    /// Logging.
    Log,
    /// Addresses, ports, sockets.
    Network,
    /// Platforms that containers do not have.
    Platform,
    /// Recovery and replication.
    Recovery,
    /// What follows a crash.
    Restart,
    /// Slots of logical replication.
    Slots,
    /// Synchronous replication.
    Synchronous,
    /// Tablespaces for temporary files.
    Tablespaces,
    /// The rules of pg_hba.conf and pg_ident.conf.
    Rules,
}

impl Owner {
    /// What to do instead, as the second half of a sentence.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::AlterSystem => "it follows spec.postgresql.enableAlterSystem",
            Self::Archive => {
                "the WAL archive is arranged by the agent; configure it in spec.backup or spec.plugins"
            }
            Self::Certificates => "TLS files and their use follow spec.certificates",
            Self::Danger => "it weakens what protects the data; leave it out",
            Self::Files => "files lie where the agent puts them; leave it out",
            Self::Identity => "it names the instance; leave it out",
            Self::Libraries => "use spec.postgresql.shared_preload_libraries",
            Self::Log => {
                "the agent collects PostgreSQL's log and writes it as JSON lines to the container's output; leave it out"
            }
            Self::Network => {
                "addresses, port and socket are the pod's; clients connect through the Services"
            }
            Self::Platform => "it has no meaning in a container; leave it out",
            Self::Recovery => {
                "replication and recovery are arranged by the agent; to recover use spec.bootstrap.recovery"
            }
            Self::Restart => "the agent decides what follows a crash; leave it out",
            Self::Slots => "use spec.replicationSlots.highAvailability.synchronizeLogicalDecoding",
            Self::Synchronous => "use spec.postgresql.synchronous",
            Self::Tablespaces => "mark a tablespace of spec.tablespaces as temporary",
            Self::Rules => "use spec.postgresql.pg_hba and spec.postgresql.pg_ident",
        }
    }
}

/// Whose a parameter is, if not the user's. `name` in lower case.
///
/// CloudNativePG's list, and with it names that its rules cover by `ssl_*` and the like. The names
/// of older majors are in it too: PostgreSQL would refuse them, but without the cure.
pub fn owner(name: &str) -> Option<Owner> {
    Some(match name {
        "allow_alter_system" => Owner::AlterSystem,
        "archive_cleanup_command"
        | "archive_command"
        | "archive_library"
        | "archive_mode"
        | "restore_command" => Owner::Archive,
        "ssl"
        | "ssl_ca_file"
        | "ssl_cert_file"
        | "ssl_crl_dir"
        | "ssl_crl_file"
        | "ssl_dh_params_file"
        | "ssl_key_file"
        | "ssl_passphrase_command"
        | "ssl_passphrase_command_supports_reload" => Owner::Certificates,
        "allow_system_table_mods"
        | "data_sync_retry"
        | "ignore_checksum_failure"
        | "ignore_invalid_pages"
        | "ignore_system_indexes"
        | "jit_provider"
        | "zero_damaged_pages" => Owner::Danger,
        "config_file" | "data_directory" | "external_pid_file" | "stats_temp_directory" => {
            Owner::Files
        }
        "cluster_name" => Owner::Identity,
        "shared_preload_libraries" => Owner::Libraries,
        "log_destination"
        | "log_directory"
        | "log_file_mode"
        | "log_filename"
        | "log_rotation_age"
        | "log_rotation_size"
        | "log_truncate_on_rotation"
        | "logging_collector"
        | "syslog_facility"
        | "syslog_ident"
        | "syslog_sequence_numbers"
        | "syslog_split_messages" => Owner::Log,
        "listen_addresses"
        | "port"
        | "unix_socket_directories"
        | "unix_socket_group"
        | "unix_socket_permissions" => Owner::Network,
        "bonjour" | "bonjour_name" | "event_source" => Owner::Platform,
        "hot_standby"
        | "pg_failover_slots.primary_dsn"
        | "primary_conninfo"
        | "primary_slot_name"
        | "promote_trigger_file"
        | "recovery_end_command"
        | "recovery_min_apply_delay"
        | "recovery_target"
        | "recovery_target_action"
        | "recovery_target_inclusive"
        | "recovery_target_lsn"
        | "recovery_target_name"
        | "recovery_target_time"
        | "recovery_target_timeline"
        | "recovery_target_xid" => Owner::Recovery,
        "restart_after_crash" => Owner::Restart,
        "pg_failover_slots.standby_slot_names" | "synchronized_standby_slots" => Owner::Slots,
        "synchronous_standby_names" => Owner::Synchronous,
        "temp_tablespaces" => Owner::Tablespaces,
        "hba_file" | "ident_file" => Owner::Rules,
        _ => return None,
    })
}

/// A user's parameter that is not taken. Its text says what is wrong and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a name.
    Syntax {
        /// What was given.
        name: String,
    },
    /// Set by somebody else.
    Owned {
        /// The parameter.
        name: String,
        /// Who sets it.
        owner: Owner,
    },
    /// The same parameter twice, in different spelling.
    Twice {
        /// The parameter, in lower case.
        name: String,
    },
    /// Not there in this major.
    NotInMajor {
        /// The parameter.
        name: String,
        /// The server's major version.
        major: Major,
        /// First and last major that have it.
        known: (Major, Major),
    },
    /// A value that breaks something that is promised.
    Value {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
        /// What it breaks, and what to write instead.
        problem: &'static str,
    },
}

impl Refusal {
    /// The parameter's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Syntax { name }
            | Self::Owned { name, .. }
            | Self::Twice { name }
            | Self::NotInMajor { name, .. }
            | Self::Value { name, .. } => name,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { name } => write!(
                f,
                "{name:?} is not a parameter's name: letters, digits, underscores and at most one dot are allowed"
            ),
            Self::Owned { name, owner } => {
                write!(f, "parameter {name} cannot be set here: {}", owner.advice())
            }
            Self::Twice { name } => write!(
                f,
                "parameter {name} is set twice: names are the same in upper and lower case; keep one"
            ),
            Self::NotInMajor { name, major, known: (first, last) } => write!(
                f,
                "parameter {name} is not known to PostgreSQL {major}: majors {first} to {last} have it; leave it out"
            ),
            Self::Value { name, value, problem } => {
                write!(f, "parameter {name} cannot be {value:?}: {problem}")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// Majors of 14 to 18 that have a parameter, where not all do (release notes, appendix E).
fn known_majors(name: &str) -> Option<(Major, Major)> {
    use Major::{V14, V15, V16, V17, V18};
    Some(match name {
        "force_parallel_mode" | "promote_trigger_file" | "vacuum_defer_cleanup_age" => (V14, V15),
        "stats_temp_directory" => (V14, V14),
        "db_user_namespace" => (V14, V16),
        "old_snapshot_threshold" | "trace_recovery_messages" => (V14, V16),
        "archive_library"
        | "recovery_prefetch"
        | "stats_fetch_consistency"
        | "wal_decode_buffer_size"
        | "log_startup_progress_interval" => (V15, V18),
        "createrole_self_grant"
        | "debug_parallel_query"
        | "gss_accept_delegation"
        | "reserved_connections"
        | "scram_iterations"
        | "vacuum_buffer_usage_limit"
        | "send_abort_for_crash"
        | "send_abort_for_kill"
        | "icu_validation_level" => (V16, V18),
        "allow_alter_system"
        | "event_triggers"
        | "io_combine_limit"
        | "summarize_wal"
        | "sync_replication_slots"
        | "synchronized_standby_slots"
        | "transaction_timeout"
        | "wal_summary_keep_time"
        | "multixact_member_buffers"
        | "subtransaction_buffers"
        | "transaction_buffers"
        | "notify_buffers"
        | "serializable_buffers"
        | "commit_timestamp_buffers"
        | "multixact_offset_buffers"
        | "huge_pages_status"
        | "restrict_nonsystem_relation_kind" => (V17, V18),
        "autovacuum_vacuum_max_threshold"
        | "autovacuum_worker_slots"
        | "extension_control_path"
        | "file_copy_method"
        | "idle_replication_slot_timeout"
        | "io_max_combine_limit"
        | "io_max_concurrency"
        | "io_method"
        | "io_workers"
        | "log_lock_failures"
        | "max_active_replication_origins"
        | "md5_password_warnings"
        | "oauth_validator_libraries"
        | "ssl_groups"
        | "ssl_tls13_ciphers"
        | "track_cost_delay_timing"
        | "vacuum_max_eager_freeze_failure_rate"
        | "vacuum_truncate" => (V18, V18),
        _ => return None,
    })
}

/// `off`, `no`, `false` and `0`, abbreviated as PostgreSQL lets them be (`parse_bool`).
fn is_off(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    let abbreviates = |word: &str| !value.is_empty() && word.starts_with(&value);
    value == "0"
        || abbreviates("false")
        || abbreviates("no")
        || (value.len() > 1 && abbreviates("off"))
}

/// What a value breaks, if anything.
fn value_problem(name: &str, value: &str) -> Option<&'static str> {
    let trimmed = value.trim();
    let is = |word: &str| trimmed.eq_ignore_ascii_case(word);
    match name {
        "wal_level" if is("minimal") => {
            Some("standbys and archives need more; use replica or logical")
        }
        "wal_log_hints" if is_off(value) => {
            Some("without it a former primary may not be rewound; leave it out or use on")
        }
        "password_encryption" if is("md5") => {
            Some("nobody is let in by md5; leave it out or use scram-sha-256")
        }
        "max_wal_senders" if units::parse_integer(trimmed).is_some_and(|senders| senders < 2) => {
            Some("standbys and clones need at least two; leave it out for PostgreSQL's ten")
        }
        "ssl_min_protocol_version" if is("") || is("TLSv1") || is("TLSv1.1") => {
            Some("older versions of TLS are broken; use TLSv1.3 or TLSv1.2")
        }
        "shared_buffers" if units::parse_memory(trimmed, units::BLOCK).is_none() => {
            Some("it is not an amount of memory; write for example 256MB or 1GB")
        }
        _ if value.contains('\0') => Some("it contains a NUL character"),
        _ => None,
    }
}

/// Why the user's parameters are not taken; empty if they are. In the order of their names.
///
/// Names that PostgreSQL does not know are not told here: its own words do
/// (`unrecognized configuration parameter`), and the old configuration goes on.
pub fn check(user: &BTreeMap<String, String>, major: Major) -> Vec<Refusal> {
    let mut seen = BTreeSet::new();
    user.iter().filter_map(|(name, value)| check_one(name, value, major, &mut seen)).collect()
}

fn check_one(
    given: &str,
    value: &str,
    major: Major,
    seen: &mut BTreeSet<String>,
) -> Option<Refusal> {
    if !is_parameter_name(given) {
        return Some(Refusal::Syntax { name: given.to_owned() });
    }
    let name = given.to_ascii_lowercase();
    if !seen.insert(name.clone()) {
        return Some(Refusal::Twice { name });
    }
    if let Some(owner) = owner(&name) {
        return Some(Refusal::Owned { name, owner });
    }
    if let Some(known) = known_majors(&name)
        && !(known.0..=known.1).contains(&major)
    {
        return Some(Refusal::NotInMajor { name, major, known });
    }
    let problem = value_problem(&name, value)?;
    Some(Refusal::Value { name, value: value.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(name: &str, value: &str, major: Major) -> Option<String> {
        let user = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        check(&user, major).first().map(Refusal::to_string)
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_to_do_instead() {
        assert_eq!(
            refused("Synchronous_Standby_Names", "*", Major::V17).unwrap(),
            "parameter synchronous_standby_names cannot be set here: use spec.postgresql.synchronous"
        );
        assert_eq!(
            refused("summarize_wal", "on", Major::V16).unwrap(),
            "parameter summarize_wal is not known to PostgreSQL 16: majors 17 to 18 have it; leave it out"
        );
        assert_eq!(
            refused("wal_level", "Minimal", Major::V16).unwrap(),
            "parameter wal_level cannot be \"Minimal\": standbys and archives need more; use replica or logical"
        );
        assert!(refused("a b", "1", Major::V17).unwrap().contains("not a parameter's name"));
    }

    #[test]
    fn values_that_break_a_promise_are_refused_in_every_spelling() {
        for value in ["off", "OFF", "of", "no", "n", "false", "f", "0"] {
            assert!(refused("wal_log_hints", value, Major::V17).is_some(), "{value}");
        }
        for value in ["on", "true", "1", "yes"] {
            assert_eq!(refused("wal_log_hints", value, Major::V17), None);
        }
        assert!(refused("shared_buffers", "lots", Major::V17).is_some());
        assert_eq!(refused("shared_buffers", "16384", Major::V17), None);
        assert!(refused("max_wal_senders", "0", Major::V17).is_some());
    }

    #[test]
    fn one_parameter_in_two_spellings_is_refused() {
        let user = ["work_mem", "Work_Mem"].map(|name| (name.to_owned(), "1MB".to_owned()));
        let refusals = check(&BTreeMap::from(user), Major::V17);
        assert_eq!(refusals, [Refusal::Twice { name: "work_mem".to_owned() }]);
    }

    #[test]
    fn parameters_of_extensions_and_common_ones_are_taken() {
        for name in ["pgaudit.log", "cron.database_name", "work_mem", "summarize_wal"] {
            assert_eq!(refused(name, "x", Major::V17), None);
        }
    }

    proptest! {
        #[test]
        fn no_parameter_makes_the_check_panic(name in "[a-z_.]{0,20}|.{0,20}", value in ".{0,20}") {
            let _ = refused(&name, &value, Major::V18);
            let _ = refused("shared_buffers", &value, Major::V18);
            let _ = refused("wal_log_hints", &value, Major::V18);
        }
    }
}
