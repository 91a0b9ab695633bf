//! The parameters of a server: our defaults and fixed ones, what users may set ([`refusal`]), the
//! order of changes that standbys depend on ([`standby`]), and values with units ([`units`]).
//!
//! Follows CloudNativePG's choice of parameters where our design has none of its own, and the
//! documentation's part "Server Configuration".

pub mod agent;
pub mod refusal;
pub mod standby;
pub mod units;

use std::collections::BTreeMap;

pub use agent::{AgentSettings, ArchiveMode};
pub use refusal::{Owner, Refusal, check};
pub use standby::{ChangeOrder, StandbySensitive, change_order};

use crate::version::Major;

/// What is set unless the user says otherwise.
pub fn defaults(major: Major) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::from(
        [
            ("archive_timeout", "5min"),
            ("dynamic_shared_memory_type", "posix"),
            ("full_page_writes", "on"),
            ("max_parallel_workers", "32"),
            ("max_replication_slots", "32"),
            ("max_worker_processes", "32"),
            ("password_encryption", "scram-sha-256"),
            ("shared_memory_type", "mmap"),
            ("ssl_max_protocol_version", "TLSv1.3"),
            ("ssl_min_protocol_version", "TLSv1.3"),
            ("wal_keep_size", "512MB"),
            ("wal_level", "logical"),
            ("wal_log_hints", "on"),
            ("wal_receiver_timeout", "5s"),
            // PostgreSQL's own is 5 s, and with `required` nobody can write for so long when the
            // standby's first attempt comes before the new primary is up.
            ("wal_retrieve_retry_interval", "500ms"),
            ("wal_sender_timeout", "5s"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    if major.has_max_active_replication_origins() {
        // Until 17 max_replication_slots counted for origins too.
        settings.insert("max_active_replication_origins".to_owned(), "32".to_owned());
    }
    settings
}

/// What is set whatever the user says, and does not depend on the pod. [`AgentSettings`] has what
/// does.
pub fn fixed(major: Major) -> BTreeMap<String, String> {
    let log_destination = if major.has_jsonlog() { "jsonlog" } else { "csvlog" };
    BTreeMap::from(
        [
            ("hot_standby", "on"),
            ("log_destination", log_destination),
            ("log_rotation_age", "0"),
            ("log_rotation_size", "0"),
            ("log_truncate_on_rotation", "off"),
            ("logging_collector", "on"),
            // The agent decides what follows a crash, by the protocol's rule 19.
            ("restart_after_crash", "off"),
            ("ssl", "on"),
            // A standby follows its primary over every promotion.
            ("recovery_target_timeline", "latest"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
}

/// An extension that is loaded because a parameter of it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagedExtension {
    /// Beginning of its parameters' names.
    pub prefix: &'static str,
    /// Its library, for `shared_preload_libraries`.
    pub library: &'static str,
    /// The extension to create in every database; none if there is only the library.
    pub extension: Option<&'static str>,
}

/// All managed extensions, as in CloudNativePG.
pub const MANAGED_EXTENSIONS: [ManagedExtension; 4] = [
    ManagedExtension { prefix: "auto_explain.", library: "auto_explain", extension: None },
    ManagedExtension {
        prefix: "pg_failover_slots.",
        library: "pg_failover_slots",
        extension: None,
    },
    ManagedExtension {
        prefix: "pg_stat_statements.",
        library: "pg_stat_statements",
        extension: Some("pg_stat_statements"),
    },
    ManagedExtension { prefix: "pgaudit.", library: "pgaudit", extension: Some("pgaudit") },
];

/// The managed extensions that the parameters ask for.
pub fn managed_extensions(
    parameters: &BTreeMap<String, String>,
) -> impl Iterator<Item = ManagedExtension> {
    MANAGED_EXTENSIONS.into_iter().filter(|managed| {
        parameters.keys().any(|name| name.to_ascii_lowercase().starts_with(managed.prefix))
    })
}

/// `shared_preload_libraries`: the user's in their order, then those of the managed extensions
/// that are not among them.
pub fn preload_libraries(user: &[String], parameters: &BTreeMap<String, String>) -> Vec<String> {
    let mut libraries: Vec<String> = Vec::new();
    let managed = managed_extensions(parameters).map(|managed| managed.library.to_owned());
    for library in user.iter().cloned().chain(managed) {
        if !library.is_empty() && !libraries.contains(&library) {
            libraries.push(library);
        }
    }
    libraries
}

/// The value of `shared_preload_libraries`: a list of double-quoted names, so that no name is
/// folded or split (`SplitDirectoriesString`).
pub fn render_libraries(libraries: &[String]) -> String {
    let quoted: Vec<_> =
        libraries.iter().map(|library| crate::sql::quote_identifier(library)).collect();
    quoted.join(", ")
}

/// Everything that `postgresql.conf` sets: our defaults, over them the user's, over these the
/// fixed ones and the agent's.
///
/// The user's parameters are checked; all refusals are reported at once.
pub fn merge(
    user: &BTreeMap<String, String>,
    agent: &AgentSettings,
    major: Major,
) -> Result<BTreeMap<String, String>, Vec<Refusal>> {
    let refusals = check(user, major);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let user = user.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut merged = defaults(major);
    merged.extend(user);
    merged.extend(fixed(major));
    merged.extend(agent.settings(major));
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_user_s_stand_over_defaults_and_ours_over_the_user_s() {
        let user = map(&[("Wal_Keep_Size", "1GB"), ("work_mem", "8MB")]);
        let merged = merge(&user, &AgentSettings::example(), Major::V17).unwrap();
        assert_eq!(merged["wal_keep_size"], "1GB");
        assert_eq!(merged["work_mem"], "8MB");
        assert_eq!(merged["wal_level"], "logical");
        assert_eq!(merged["log_destination"], "jsonlog");
        assert_eq!(merged["allow_alter_system"], "off");
        assert!(!merged.contains_key("Wal_Keep_Size"));
        let refused = map(&[("port", "1"), ("work_mem", "1")]);
        assert_eq!(merge(&refused, &AgentSettings::example(), Major::V17).unwrap_err().len(), 1);
    }

    #[test]
    fn no_major_is_given_a_parameter_that_it_does_not_know() {
        let merged = |major| merge(&BTreeMap::new(), &AgentSettings::example(), major).unwrap();
        assert_eq!(merged(Major::V14)["log_destination"], "csvlog");
        assert!(!merged(Major::V16).contains_key("allow_alter_system"));
        assert!(!merged(Major::V17).contains_key("max_active_replication_origins"));
        assert!(merged(Major::V18).contains_key("max_active_replication_origins"));
    }

    #[test]
    fn no_default_is_refused_to_a_user() {
        for major in Major::ALL {
            assert_eq!(check(&defaults(major), major), []);
        }
    }

    #[test]
    fn every_fixed_parameter_is_refused_to_a_user() {
        for major in Major::ALL {
            let ours = [fixed(major), AgentSettings::example().settings(major)].concat_maps();
            let refused = check(&ours, major);
            assert_eq!(refused.len(), ours.len(), "{major}: {ours:?} {refused:?}");
        }
    }

    trait ConcatMaps {
        fn concat_maps(self) -> BTreeMap<String, String>;
    }

    impl ConcatMaps for [BTreeMap<String, String>; 2] {
        fn concat_maps(self) -> BTreeMap<String, String> {
            self.into_iter().flatten().collect()
        }
    }

    #[test]
    fn libraries_follow_from_parameters_and_are_named_once() {
        let parameters = map(&[("pgaudit.log", "all"), ("PG_STAT_STATEMENTS.max", "1")]);
        let user = ["timescaledb".to_owned(), "pgaudit".to_owned()];
        let libraries = preload_libraries(&user, &parameters);
        assert_eq!(libraries, ["timescaledb", "pgaudit", "pg_stat_statements"]);
        assert_eq!(
            render_libraries(&libraries),
            "\"timescaledb\", \"pgaudit\", \"pg_stat_statements\""
        );
        let extensions: Vec<_> =
            managed_extensions(&parameters).filter_map(|managed| managed.extension).collect();
        assert_eq!(extensions, ["pg_stat_statements", "pgaudit"]);
    }
}
