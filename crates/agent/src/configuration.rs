//! PostgreSQL's configuration files.
//!
//! What the user asks for is tried out before it is used: `postgres -C` reads a candidate as a
//! start would. What PostgreSQL refuses is reported in its own words, and the last configuration
//! that it took goes on, also over a restart: a typing error is never an outage.

use std::path::Path;
use std::time::Duration;

use matriarch_api::causes::chain;
use matriarch_api::instance::{Configuration, InstanceSpec};
use matriarch_pg::conf::render_settings;
use matriarch_pg::control::{ControlData, StandbyFloor};
use matriarch_pg::parameters::{AgentSettings, ArchiveMode, merge, preload_libraries};
use matriarch_pg::sql::quote_identifier;
use matriarch_pg::synchronous::StandbyNames as Names;
use matriarch_pg::{Major, hba, ident};
use matriarch_plan::protocol::StandbyNames;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::certificates::Files;
use crate::driver::context::Replication;
use crate::ldap;
use crate::options::{AgentOptions, POSTGRES_PORT, TablespacePlace};
use crate::postgres::data;
use crate::postgres::program::{self, Installation, Run};
use crate::postgres::server::{CONFIGURATION_MARKER, REPLICATION_MARKER};
use crate::root::Root;

/// How long `postgres -C` may take.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
const CANDIDATE: &str = "matriarch-candidate.conf";

/// What the files follow from.
pub struct Input<'a> {
    /// Who this pod is.
    pub options: &'a AgentOptions,
    /// The user's part.
    pub configuration: &'a Configuration,
    /// The operator's hash over it.
    pub hash: &'a str,
    /// Of the installation.
    pub major: Major,
    /// What PostgreSQL replicates.
    pub replication: &'a Replication,
    /// The instance's name of itself towards its primary.
    pub application_name: &'a str,
    /// The password with which users are searched by LDAP.
    pub ldap_password: Option<&'a str>,
}

/// The user's part that PostgreSQL took last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Accepted {
    /// The operator's hash over it.
    pub hash: String,
    /// It.
    pub configuration: Configuration,
}

impl Accepted {
    /// That of a directive.
    #[must_use]
    pub fn of(spec: &InstanceSpec) -> Self {
        Self { hash: spec.configuration_hash.clone(), configuration: spec.configuration.clone() }
    }

    /// This with the rules (of pg_hba.conf and pg_ident.conf) of another, or with none. Its hash is
    /// neither's: both would be taken for what is in force.
    #[must_use]
    pub fn with_rules_of(&self, other: Option<&Self>) -> Self {
        let mut mixed = Self { hash: format!("{}-former-rules", self.hash), ..self.clone() };
        mixed.configuration.ldap = other.and_then(|it| it.configuration.ldap.clone());
        let (hba, ident) = (&mut mixed.configuration.pg_hba, &mut mixed.configuration.pg_ident);
        hba.clone_from(other.map_or(&Vec::new(), |it| &it.configuration.pg_hba));
        ident.clone_from(other.map_or(&Vec::new(), |it| &it.configuration.pg_ident));
        mixed
    }

    /// True if its rules are those of another, or none.
    #[must_use]
    pub fn has_rules_of(&self, other: Option<&Self>) -> bool {
        let own = &self.configuration;
        match other.map(|other| &other.configuration) {
            Some(other) => {
                own.pg_hba == other.pg_hba
                    && own.pg_ident == other.pg_ident
                    && own.ldap == other.ldap
            }
            None => own.pg_hba.is_empty() && own.pg_ident.is_empty() && own.ldap.is_none(),
        }
    }

    /// What was taken last, by this agent or one before it.
    #[must_use]
    pub fn load(root: &Root) -> Option<Self> {
        let bytes = std::fs::read(root.state().join("accepted-configuration.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps it for the next start.
    ///
    /// # Errors
    /// As the system says.
    pub fn save(&self, root: &Root) -> Result<(), data::Error> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        data::write_atomically(&root.state().join("accepted-configuration.json"), &bytes)
    }
}

/// The texts of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    postgresql: String,
    hba: String,
    ident: String,
    /// Hash over what concerns replication, which stands in the loaded configuration.
    pub replication_hash: String,
    /// What standbys depend on.
    pub floor: Option<StandbyFloor>,
}

impl Rendered {
    /// The files of rules: name and text.
    #[must_use]
    pub fn rules(&self) -> [(&'static str, &str); 2] {
        [("pg_hba.conf", &self.hba), ("pg_ident.conf", &self.ident)]
    }
}

/// Renders the files; an error says what is wrong with the user's part.
///
/// # Errors
/// All that is wrong, one text for each.
pub fn render(input: &Input<'_>, floor: Option<&StandbyFloor>) -> Result<Rendered, String> {
    let configuration = input.configuration;
    let agent = agent_settings(input);
    let mut settings = merge(&configuration.parameters, &agent, input.major)
        .map_err(|refusals| joined(&refusals))?;
    // The reader of the log removes files that are done, so they have to end.
    settings.insert("log_rotation_size".to_owned(), "16MB".to_owned());
    match input.options.tablespaces {
        TablespacePlace::Volumes => {}
        // PostgreSQL allows it to its own developers alone, and recovery stops at one otherwise.
        TablespacePlace::DataDirectory => {
            settings.insert("allow_in_place_tablespaces".to_owned(), "on".to_owned());
        }
    }
    if !configuration.temporary_tablespaces.is_empty() {
        let names = configuration.temporary_tablespaces.iter().map(|it| quote_identifier(it));
        let list = names.collect::<Vec<_>>().join(", ");
        settings.insert("temp_tablespaces".to_owned(), list);
    }
    let wished = StandbyFloor::of_parameters(&settings);
    if let Some(wished) = wished {
        // Always written: PostgreSQL takes it for a change that a setting for whose change it would
        // have to restart is no longer in the file, whatever its value.
        let settled = match (input.replication, floor) {
            (Replication::Standby(_), Some(floor)) => wished.at_least(floor),
            (Replication::Standby(_), None) | (Replication::Primary(_), _) => wished,
        };
        settings.extend(settled.settings());
    }
    let mut hash = Sha256::new();
    for text in
        [&agent.primary_conninfo, &agent.primary_slot_name, &agent.synchronous_standby_names]
    {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    let replication_hash = crate::binary::hexadecimal(&hash.finalize()[..16]);
    settings.insert(CONFIGURATION_MARKER.to_owned(), input.hash.to_owned());
    settings.insert(REPLICATION_MARKER.to_owned(), replication_hash.clone());
    let user = system_user().ok_or_else(|| {
        let uid = rustix::process::getuid().as_raw();
        format!("user id {uid} has no name in {}", Root::passwd().display())
    })?;
    let ldap = configuration.ldap.as_ref().map(|ldap| ldap::rule(ldap, input.ldap_password));
    Ok(Rendered {
        postgresql: render_settings(&settings).map_err(|error| error.to_string())?,
        hba: hba::render(&configuration.pg_hba, ldap.as_ref(), input.major)
            .map_err(|errors| joined(&errors))?,
        ident: ident::render(&user, &configuration.pg_ident).map_err(|errors| joined(&errors))?,
        replication_hash,
        floor: wished,
    })
}

fn joined<T: std::fmt::Display>(errors: &[T]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The name of the own user id, read from the file that the operator mounts: the C library, which
/// would read it for us, crashes a static binary (traps P2).
fn system_user() -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let text = std::fs::read_to_string(Root::passwd()).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

fn agent_settings(input: &Input<'_>) -> AgentSettings {
    let (options, configuration) = (input.options, input.configuration);
    let root = &options.root;
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let files = Files::new(root);
    let mut listen_addresses = vec![options.address.to_string()];
    if !options.own_address_only {
        listen_addresses.push("127.0.0.1".to_owned());
    }
    let slots = &configuration.high_availability_slots;
    let (conninfo, slot, names) = match input.replication {
        Replication::Standby(Some(source)) => (
            source.connection_string(root, input.application_name),
            if slots.enabled { slots.slot_name(&options.instance) } else { String::new() },
            String::new(),
        ),
        Replication::Standby(None) => (String::new(), String::new(), String::new()),
        Replication::Primary(names) => (String::new(), String::new(), standby_names(names)),
    };
    AgentSettings {
        cluster_name: options.instance.clone(),
        listen_addresses,
        port: POSTGRES_PORT,
        socket_directory: text(root.run()),
        ssl_certificate: text(files.server_certificate()),
        ssl_key: text(files.server_key()),
        ssl_client_ca: text(files.client_ca()),
        log_directory: text(root.log()),
        log_filename: "postgres-%Y%m%dT%H%M%S".to_owned(),
        hba_file: None,
        ident_file: None,
        allow_alter_system: configuration.enable_alter_system,
        archive_mode: ArchiveMode::Off,
        archive_command: String::new(),
        restore_command: None,
        preload_libraries: preload_libraries(
            &configuration.shared_preload_libraries,
            &configuration.parameters,
        ),
        primary_conninfo: conninfo,
        primary_slot_name: slot,
        synchronous_standby_names: names,
    }
}

fn standby_names(names: &StandbyNames) -> String {
    let mut listed: Vec<String> = names
        .members
        .iter()
        .map(|member| member.as_str().to_owned())
        .chain(names.outside.iter().cloned())
        .collect();
    if listed.is_empty() && names.need > 0 {
        // Commits wait for a name that nobody has.
        listed.push("matriarch-nobody".to_owned());
    }
    Names::any(names.need, listed).map_or(String::new(), |names| names.to_string())
}

/// Writes the files into a data directory.
///
/// # Errors
/// As the system says.
pub fn write(directory: &Path, rendered: &Rendered, alter_system: bool) -> Result<(), data::Error> {
    data::write_atomically(&directory.join("pg_hba.conf"), rendered.hba.as_bytes())?;
    data::write_atomically(&directory.join("pg_ident.conf"), rendered.ident.as_bytes())?;
    data::write_atomically(&directory.join("postgresql.conf"), rendered.postgresql.as_bytes())?;
    if alter_system { Ok(()) } else { set_aside_alter_system(directory) }
}

/// Settings of ALTER SYSTEM go over everything in the manifest, out of its sight: where it is not
/// enabled they are moved to a file that PostgreSQL does not read.
fn set_aside_alter_system(directory: &Path) -> Result<(), data::Error> {
    let path = directory.join("postgresql.auto.conf");
    let content = std::fs::read_to_string(&path).unwrap_or_default();
    let set = content.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'));
    if set {
        tracing::warn!("settings of ALTER SYSTEM are moved to postgresql.auto.conf.disabled");
        let kept = directory.join("postgresql.auto.conf.disabled");
        data::write_atomically(&kept, content.as_bytes())?;
        data::write_atomically(&path, b"")?;
    }
    Ok(())
}

/// Has PostgreSQL read the configuration as a start would.
///
/// # Errors
/// What it has against it, in its own words.
pub async fn check(
    directory: &Path,
    installation: &Installation,
    rendered: &Rendered,
) -> Result<(), String> {
    let candidate = directory.join(CANDIDATE);
    data::write_atomically(&candidate, rendered.postgresql.as_bytes())
        .map_err(|error| chain(&error))?;
    let outcome = Run::new(installation.program("postgres"), CHECK_LIMIT)
        .args(["-C", "server_version", "-D"])
        .arg(directory)
        .arg("-c")
        .arg(format!("config_file={}", candidate.display()))
        .run()
        .await;
    if let Err(error) = data::remove_file(&candidate) {
        tracing::warn!(error = chain(&error), "candidate left behind");
    }
    match outcome {
        Ok(_) => Ok(()),
        Err(program::Error::Failed { output, .. }) => Err(output
            .replace(&format!("{}", candidate.display()), "postgresql.conf")
            .replace(CANDIDATE, "postgresql.conf")),
        Err(error) => Err(chain(&error)),
    }
}

/// The floor below which a standby must not stay, from the control file of a directory.
#[must_use]
pub fn floor(directory: &Path) -> Option<StandbyFloor> {
    let bytes = std::fs::read(directory.join("global/pg_control")).ok()?;
    ControlData::parse(&bytes).ok().map(|control| control.floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input<'a>(
        options: &'a AgentOptions,
        configuration: &'a Configuration,
        replication: &'a Replication,
    ) -> Input<'a> {
        Input {
            options,
            configuration,
            hash: "h",
            major: Major::V15,
            replication,
            application_name: "me",
            ldap_password: None,
        }
    }

    fn options() -> AgentOptions {
        AgentOptions {
            instance: "c-1".to_owned(),
            namespace: "n".to_owned(),
            pod_uid: "u".to_owned(),
            address: [127, 0, 0, 7].into(),
            cluster: "c".to_owned(),
            identity: "matriarch".to_owned(),
            api_server: ("127.0.0.1".to_owned(), 6443),
            root: Root::new("/r"),
            path: "".into(),
            own_address_only: true,
            tablespaces: TablespacePlace::DataDirectory,
        }
    }

    #[test]
    fn a_refused_parameter_is_said_by_name() {
        let mut configuration = Configuration::default();
        configuration.parameters.insert("port".to_owned(), "1".to_owned());
        let replication = Replication::Standby(None);
        let error = render(&input(&options(), &configuration, &replication), None).unwrap_err();
        assert!(error.contains("port"), "{error}");
    }

    #[test]
    fn tablespaces_for_temporary_files_are_said_to_postgresql() {
        let temporary_tablespaces = vec!["fast".to_owned(), "Other-1".to_owned()];
        let configuration = Configuration { temporary_tablespaces, ..Configuration::default() };
        let options = options();
        let replication = Replication::Standby(None);
        let text = render(&input(&options, &configuration, &replication), None).unwrap().postgresql;
        assert!(text.contains("temp_tablespaces = '\"fast\", \"Other-1\"'"), "{text}");
        assert!(text.contains("allow_in_place_tablespaces = 'on'"), "{text}");
        let options = AgentOptions { tablespaces: TablespacePlace::Volumes, ..options };
        let text = render(&input(&options, &configuration, &replication), None).unwrap().postgresql;
        assert!(!text.contains("in_place"), "{text}");
    }

    #[test]
    fn a_standby_never_stays_below_its_control_file() {
        let mut configuration = Configuration::default();
        configuration.parameters.insert("max_connections".to_owned(), "10".to_owned());
        let floor = StandbyFloor {
            max_connections: 200,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
        };
        let options = options();
        let standby = Replication::Standby(None);
        let text = render(&input(&options, &configuration, &standby), Some(&floor)).unwrap();
        assert!(text.postgresql.contains("max_connections = '200'"), "{}", text.postgresql);
        let primary = Replication::Primary(StandbyNames::none());
        let text = render(&input(&options, &configuration, &primary), Some(&floor)).unwrap();
        assert!(text.postgresql.contains("max_connections = '10'"), "{}", text.postgresql);
    }

    #[test]
    fn a_promotion_takes_no_setting_out_of_the_file() {
        let (options, configuration) = (options(), Configuration::default());
        let floor = StandbyFloor {
            max_connections: 100,
            max_worker_processes: 32,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
        };
        let names = |replication: &Replication| -> Vec<String> {
            let input = input(&options, &configuration, replication);
            let text = render(&input, Some(&floor)).unwrap().postgresql;
            text.lines().filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect()
        };
        let standby = names(&Replication::Standby(None));
        let primary = names(&Replication::Primary(StandbyNames::none()));
        assert!(standby.contains(&"max_locks_per_transaction".to_owned()), "{standby:?}");
        let gone: Vec<_> = standby.iter().filter(|name| !primary.contains(name)).collect();
        assert!(gone.is_empty(), "{gone:?}");
    }

    #[test]
    fn the_replication_hash_follows_the_names_alone() {
        let (options, configuration) = (options(), Configuration::default());
        let names = |need| StandbyNames {
            need,
            members: ["a".into(), "b".into()].into(),
            outside: std::collections::BTreeSet::new(),
        };
        let hash = |replication: &Replication| {
            render(&input(&options, &configuration, replication), None).unwrap().replication_hash
        };
        let one = hash(&Replication::Primary(names(1)));
        assert_eq!(one, hash(&Replication::Primary(names(1))));
        assert_ne!(one, hash(&Replication::Primary(names(2))));
    }

    #[test]
    fn a_slot_s_name_has_only_what_a_slot_s_name_can_have() {
        assert_eq!(
            matriarch_api::instance::HighAvailabilitySlots::default().slot_name("My-cluster.1"),
            "_matriarch_my_cluster_1"
        );
    }
}
