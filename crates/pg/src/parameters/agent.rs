//! Parameters that depend on the pod or on what the cluster does now: the agent gives them.

use std::collections::BTreeMap;

use super::render_libraries;
use crate::version::Major;

/// `archive_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveMode {
    /// Nothing is archived.
    #[default]
    Off,
    /// Primaries archive.
    On,
    /// Standbys archive too (replica clusters).
    Always,
}

impl ArchiveMode {
    /// The parameter's value.
    pub const fn value(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Always => "always",
        }
    }
}

/// What the agent of one instance adds to everybody's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSettings {
    /// `cluster_name`.
    pub cluster_name: String,
    /// `listen_addresses`.
    pub listen_addresses: Vec<String>,
    /// `port`.
    pub port: u16,
    /// `unix_socket_directories`: one directory. Its path and the socket's name together have at
    /// most 107 bytes (traps L2).
    pub socket_directory: String,
    /// `ssl_cert_file`.
    pub ssl_certificate: String,
    /// `ssl_key_file`.
    pub ssl_key: String,
    /// `ssl_ca_file`, which verifies clients.
    pub ssl_client_ca: String,
    /// `log_directory`.
    pub log_directory: String,
    /// `log_filename`; PostgreSQL appends `.json` or `.csv`.
    pub log_filename: String,
    /// `hba_file`, if it is not in the data directory.
    pub hba_file: Option<String>,
    /// `ident_file`, if it is not in the data directory.
    pub ident_file: Option<String>,
    /// `allow_alter_system`, from 17 on; before, the agent makes `postgresql.auto.conf` read-only.
    pub allow_alter_system: bool,
    /// `archive_mode`.
    pub archive_mode: ArchiveMode,
    /// `archive_command`; empty without archive.
    pub archive_command: String,
    /// `restore_command`, if there is an archive to restore from.
    pub restore_command: Option<String>,
    /// `shared_preload_libraries`, of [`super::preload_libraries`].
    pub preload_libraries: Vec<String>,
    /// `primary_conninfo`; empty on a primary and while nobody is followed.
    pub primary_conninfo: String,
    /// `primary_slot_name`; empty without a slot.
    pub primary_slot_name: String,
    /// `synchronous_standby_names`; empty when commits wait for no standby.
    pub synchronous_standby_names: String,
}

impl AgentSettings {
    /// As parameters of `major`.
    pub fn settings(&self, major: Major) -> BTreeMap<String, String> {
        let mut settings: BTreeMap<String, String> = [
            ("archive_command", self.archive_command.clone()),
            ("archive_mode", self.archive_mode.value().to_owned()),
            ("cluster_name", self.cluster_name.clone()),
            ("listen_addresses", self.listen_addresses.join(",")),
            ("log_directory", self.log_directory.clone()),
            ("log_filename", self.log_filename.clone()),
            ("port", self.port.to_string()),
            ("primary_conninfo", self.primary_conninfo.clone()),
            ("primary_slot_name", self.primary_slot_name.clone()),
            ("shared_preload_libraries", render_libraries(&self.preload_libraries)),
            ("ssl_ca_file", self.ssl_client_ca.clone()),
            ("ssl_cert_file", self.ssl_certificate.clone()),
            ("ssl_key_file", self.ssl_key.clone()),
            ("synchronous_standby_names", self.synchronous_standby_names.clone()),
            ("unix_socket_directories", crate::sql::quote_identifier(&self.socket_directory)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let optional = [
            ("hba_file", &self.hba_file),
            ("ident_file", &self.ident_file),
            ("restore_command", &self.restore_command),
        ];
        for (name, value) in optional {
            settings.extend(value.iter().map(|value| (name.to_owned(), value.clone())));
        }
        if major.has_allow_alter_system() {
            let value = if self.allow_alter_system { "on" } else { "off" };
            settings.insert("allow_alter_system".to_owned(), value.to_owned());
        }
        settings
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            cluster_name: "c-1".to_owned(),
            listen_addresses: vec!["10.0.0.1".to_owned(), "127.0.0.1".to_owned()],
            port: 5432,
            socket_directory: "/run/c".to_owned(),
            hba_file: Some("/run/hba".to_owned()),
            ident_file: Some("/run/ident".to_owned()),
            restore_command: Some("false".to_owned()),
            preload_libraries: vec!["pgaudit".to_owned()],
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_as_postgresql_splits_them() {
        let settings = AgentSettings::example().settings(Major::V15);
        assert_eq!(settings["listen_addresses"], "10.0.0.1,127.0.0.1");
        assert_eq!(settings["unix_socket_directories"], "\"/run/c\"");
        assert_eq!(settings["shared_preload_libraries"], "\"pgaudit\"");
        assert_eq!(settings["archive_mode"], "off");
        assert!(!settings.contains_key("allow_alter_system"));
    }
}
