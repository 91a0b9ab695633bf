//! What CEL cannot say of a Cluster, and what must hold also where the schema was not enforced
//! (an object made under an older definition). All findings at once, each with its path.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use matriarch_pg::version::Major;

use crate::cluster::{BootstrapInitdb, ClusterSpec, LocaleProvider, SqlRefs, Storage};
use crate::identity::Identity;
use crate::names;
use crate::quantity::Amount;
use crate::slot_patterns::SlotPatterns;

/// Something in the spec that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path in the object.
    pub path: String,
    /// What is wrong and what to do.
    pub sentence: String,
}

/// Greatest length of an identifier in PostgreSQL (NAMEDATALEN - 1).
const MAX_IDENTIFIER: usize = 63;

/// Seconds of `stopDelay` where the user writes none.
pub const DEFAULT_STOP_DELAY: i32 = 1800;

/// All findings of a cluster. `major` is the major version of the image, where it is known.
pub fn cluster(
    name: &str,
    spec: &ClusterSpec,
    major: Option<Major>,
    identity: Identity,
) -> Vec<Finding> {
    let mut report = Report::default();
    report.name(name);
    report.replicas(spec);
    report.failover(name, spec);
    report.storage("spec.storage", spec.storage.as_ref());
    if spec.wal_storage.is_some() {
        report.storage("spec.walStorage", spec.wal_storage.as_ref());
    }
    report.tablespaces(spec);
    report.resources(spec);
    report.environment(spec, identity);
    report.postgresql(spec);
    report.ldap(spec);
    report.delays(spec);
    if let Some(initdb) = spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.initdb.as_ref()) {
        report.initdb(initdb, major);
    }
    report.slots(spec);
    report.findings
}

/// How far a successor may be behind in asynchronous mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaximumLag {
    /// As far as it is.
    Unlimited,
    /// At most so many bytes.
    Bytes(u64),
}

/// One megabyte: the bound where the user writes none (docs/ha-protocol.md, "Defaults").
pub const DEFAULT_MAXIMUM_LAG: MaximumLag = MaximumLag::Bytes(1 << 20);

/// Reads `spec.failover.maximumLag`; none if it is no quantity.
pub fn maximum_lag(value: Option<&IntOrString>) -> Option<MaximumLag> {
    match value {
        None => Some(DEFAULT_MAXIMUM_LAG),
        Some(IntOrString::Int(bytes)) => u64::try_from(*bytes).ok().map(MaximumLag::Bytes),
        Some(IntOrString::String(text)) if text == "unlimited" => Some(MaximumLag::Unlimited),
        Some(IntOrString::String(text)) => {
            Amount::parse(text).and_then(Amount::units).map(MaximumLag::Bytes)
        }
    }
}

/// What is wrong with a line that names pods (`${podselector:NAME}`).
fn unresolved(line: &str, file: &str, spec: &ClusterSpec) -> Option<String> {
    let (_, rest) = line.split_once("${podselector:")?;
    let Some((name, _)) = rest.split_once('}') else {
        return Some("${podselector:NAME} has no closing brace".to_owned());
    };
    if file != "pg_hba" {
        return Some("pods are named in pg_hba only".to_owned());
    }
    let known = spec.pod_selector_refs.iter().any(|entry| entry.name.as_deref() == Some(name));
    (!known).then(|| format!("no entry of spec.podSelectorRefs is called {name:?}; add it there"))
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, path: impl Into<String>, sentence: impl Into<String>) {
        self.findings.push(Finding { path: path.into(), sentence: sentence.into() });
    }

    fn name(&mut self, name: &str) {
        if name.len() > names::MAX_CLUSTER_NAME {
            self.add(
                "metadata.name",
                format!(
                    "the name has {} characters, but names of Services, volumes and Secrets are made from it: at most {} are possible",
                    name.len(),
                    names::MAX_CLUSTER_NAME
                ),
            );
        }
        if !names::is_dns_1035_label(name) && name.len() <= names::MAX_CLUSTER_NAME {
            self.add(
                "metadata.name",
                format!("{name:?} is no DNS label: lower-case letters, digits and hyphens, a letter first, no hyphen last"),
            );
        }
    }

    fn replicas(&mut self, spec: &ClusterSpec) {
        let instances = i64::from(spec.instances.unwrap_or(1));
        if instances < 1 {
            self.add("spec.instances", "at least one instance is needed");
        }
        let least = i64::from(spec.min_sync_replicas.unwrap_or(0));
        let most = i64::from(spec.max_sync_replicas.unwrap_or(0));
        if least > most {
            self.add("spec.minSyncReplicas", "it cannot be greater than maxSyncReplicas");
        }
        if most > 0 && most >= instances {
            self.add(
                "spec.maxSyncReplicas",
                format!("it must be lower than the number of instances ({instances})"),
            );
        }
        let synchronous = spec.postgresql.as_ref().and_then(|p| p.synchronous.as_ref());
        let Some(synchronous) = synchronous else { return };
        if most > 0 {
            self.add(
                "spec.postgresql.synchronous",
                "it cannot be used together with minSyncReplicas and maxSyncReplicas",
            );
        }
        let number = i64::from(synchronous.number.unwrap_or(0));
        if number < 1 {
            self.add("spec.postgresql.synchronous.number", "it must be at least 1");
        }
        let outside = synchronous.standby_names_pre.len() + synchronous.standby_names_post.len();
        let listed = synchronous
            .max_standby_names_from_cluster
            .map_or(instances - 1, |most| i64::from(most).min(instances - 1));
        let standbys = listed + i64::try_from(outside).unwrap_or(i64::MAX - 1_000_000);
        if number > standbys {
            self.add(
                "spec.postgresql.synchronous.number",
                format!(
                    "{number} standbys are to acknowledge every commit, but at most {standbys} can: with {instances} instances no commit would end"
                ),
            );
        }
    }

    fn failover(&mut self, cluster: &str, spec: &ClusterSpec) {
        let Some(failover) = &spec.failover else { return };
        if maximum_lag(failover.maximum_lag.as_ref()).is_none() {
            self.add(
                "spec.failover.maximumLag",
                "it must be a number of bytes, a quantity such as 16Mi, or unlimited",
            );
        }
        if failover.failsafe_max.is_some_and(|seconds| seconds < 1) {
            self.add("spec.failover.failsafeMax", "it must be at least 1 second");
        }
        for (instance, priority) in &failover.priority {
            let path = format!("spec.failover.priority[{instance:?}]");
            if names::serial_of(cluster, instance).is_none() {
                self.add(path, format!("no instance of this cluster can have this name: they are {cluster}-1, {cluster}-2, …"));
            } else if *priority < -1 {
                self.add(path, "the lowest priority is -1: never promoted");
            }
        }
        let serial_count = i32::try_from(failover.priority.len()).unwrap_or(i32::MAX);
        if serial_count >= spec.instances.unwrap_or(1)
            && failover.priority.values().all(|priority| *priority == -1)
            && serial_count > 0
        {
            self.add("spec.failover.priority", "no instance would be left that may be promoted");
        }
    }

    fn storage(&mut self, path: &str, storage: Option<&Storage>) {
        let Some(storage) = storage else {
            self.add(path, "it is required: the data needs a volume");
            return;
        };
        let template = storage
            .pvc_template
            .as_ref()
            .and_then(|template| template.resources.as_ref())
            .and_then(|resources| resources.requests.as_ref())
            .and_then(|requests| requests.get("storage"));
        let (path, size) = match (&storage.size, template) {
            (Some(size), _) => (format!("{path}.size"), size.as_str()),
            (None, Some(Quantity(size))) => {
                (format!("{path}.pvcTemplate.resources.requests.storage"), size.as_str())
            }
            (None, None) => {
                self.add(format!("{path}.size"), "a size is required, such as 10Gi");
                return;
            }
        };
        match Amount::parse(size) {
            None => self.add(path, format!("{size:?} is no quantity such as 10Gi")),
            Some(amount) if amount.is_none_or_less() => self.add(path, "it must be greater than 0"),
            Some(_) => {}
        }
    }

    fn tablespaces(&mut self, spec: &ClusterSpec) {
        let mut volumes = BTreeMap::new();
        for (index, tablespace) in spec.tablespaces.iter().enumerate() {
            let path = format!("spec.tablespaces[{index}]");
            let name = tablespace.name.as_deref().unwrap_or_default();
            if !names::is_tablespace_name(name) {
                self.add(
                    format!("{path}.name"),
                    format!("{name:?} names no volume: at most {} letters, digits, _ and -, a letter first, no _ or - last", names::MAX_TABLESPACE_NAME),
                );
            } else if name.starts_with("pg_") {
                self.add(format!("{path}.name"), "names that begin with pg_ are PostgreSQL's own");
            } else if let Some(other) = volumes.insert(names::tablespace_volume(name), name) {
                self.add(
                    format!("{path}.name"),
                    format!("{name} and {other} would have the same volume; choose another name"),
                );
            }
            self.storage(&format!("{path}.storage"), tablespace.storage.as_ref());
            let owner = tablespace.owner.as_ref().and_then(|owner| owner.name.as_deref());
            if let Some(owner) = owner {
                self.identifier(&format!("{path}.owner.name"), owner);
            }
        }
    }

    fn resources(&mut self, spec: &ClusterSpec) {
        let Some(resources) = &spec.resources else { return };
        let none = BTreeMap::new();
        let limits = resources.limits.as_ref().unwrap_or(&none);
        for (name, request) in resources.requests.as_ref().unwrap_or(&none) {
            let path = format!("spec.resources.requests.{name}");
            match (Amount::parse(&request.0), limits.get(name).map(|limit| Amount::parse(&limit.0)))
            {
                (None, _) => self.add(path, format!("{:?} is no quantity", request.0)),
                (Some(request), Some(Some(limit))) if request > limit => {
                    self.add(path, "the request is greater than the limit");
                }
                (Some(_), _) => {}
            }
        }
        for (name, limit) in limits {
            if Amount::parse(&limit.0).is_none() {
                self.add(
                    format!("spec.resources.limits.{name}"),
                    format!("{:?} is no quantity", limit.0),
                );
            }
        }
    }

    fn environment(&mut self, spec: &ClusterSpec, identity: Identity) {
        for variable in &spec.env {
            if is_reserved(&variable.name, identity) {
                self.add(
                    format!("spec.env[{:?}]", variable.name),
                    format!(
                        "the name is reserved: PG*, {}*, {}*, POD_NAME, POD_UID, POD_IP, NAMESPACE, CLUSTER_NAME",
                        identity.environment_prefix(),
                        Identity::Matriarch.environment_prefix()
                    ),
                );
            }
        }
    }

    fn postgresql(&mut self, spec: &ClusterSpec) {
        let Some(postgresql) = &spec.postgresql else { return };
        let files = [("pg_hba", &postgresql.pg_hba), ("pg_ident", &postgresql.pg_ident)];
        for (file, lines) in files {
            for (index, line) in lines.iter().enumerate() {
                let path = format!("spec.postgresql.{file}[{index}]");
                if line.contains(['\n', '\r', '\0']) {
                    self.add(path, "one entry is one line: write several entries");
                } else if let Some(sentence) = unresolved(line, file, spec) {
                    self.add(path, sentence);
                } else if line.trim_start().starts_with('@')
                    || line.trim_start().starts_with("include")
                {
                    self.add(path, "other files cannot be included: write their lines here");
                }
            }
        }
        for (index, library) in postgresql.shared_preload_libraries.iter().enumerate() {
            if library.is_empty() || library.contains([',', '\'', '"', '\n', '\0']) {
                self.add(
                    format!("spec.postgresql.shared_preload_libraries[{index}]"),
                    format!("{library:?} is no name of a library: one entry is one library"),
                );
            }
        }
    }

    fn ldap(&mut self, spec: &ClusterSpec) {
        let Some(ldap) = spec.postgresql.as_ref().and_then(|it| it.ldap.as_ref()) else { return };
        let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
        if empty(&ldap.server) {
            self.add("spec.postgresql.ldap.server", "the host of the LDAP server is missing");
        }
        if ldap.port.is_some_and(|port| u16::try_from(port).is_err()) {
            self.add("spec.postgresql.ldap.port", "it is no port: 1 to 65535");
        }
        match (&ldap.bind_as_auth, &ldap.bind_search_auth) {
            (Some(_), None) => {}
            (None, Some(search)) => {
                let path = "spec.postgresql.ldap.bindSearchAuth";
                if empty(&search.base_dn) {
                    self.add(format!("{path}.baseDN"), "it says where users are searched for");
                }
                if !empty(&search.search_attribute) && !empty(&search.search_filter) {
                    self.add(
                        format!("{path}.searchFilter"),
                        "PostgreSQL takes searchAttribute or searchFilter; leave one of the two out",
                    );
                }
                let reference = search.bind_password.as_ref();
                if reference.is_some_and(|it| it.name.is_empty() || it.key.is_empty()) {
                    self.add(
                        format!("{path}.bindPassword"),
                        "the Secret's name and key are needed",
                    );
                }
            }
            (Some(_), Some(_)) | (None, None) => self.add(
                "spec.postgresql.ldap",
                "one of bindAsAuth and bindSearchAuth says how a user's entry is found",
            ),
        }
        let search = ldap.bind_search_auth.clone().unwrap_or_default();
        let bind = ldap.bind_as_auth.clone().unwrap_or_default();
        let values = [
            &ldap.server,
            &bind.prefix,
            &bind.suffix,
            &search.base_dn,
            &search.bind_dn,
            &search.search_attribute,
            &search.search_filter,
        ];
        if values.into_iter().flatten().any(|value| value.contains(['\n', '\r', '\0'])) {
            self.add("spec.postgresql.ldap", "a value cannot contain a line break");
        }
    }

    fn slots(&mut self, spec: &ClusterSpec) {
        let copies =
            spec.replication_slots.as_ref().and_then(|slots| slots.synchronize_replicas.as_ref());
        let Some(copies) = copies else { return };
        for (index, pattern) in copies.exclude_patterns.iter().enumerate() {
            if let Err(error) = SlotPatterns::new(std::slice::from_ref(pattern)) {
                self.add(
                    format!("spec.replicationSlots.synchronizeReplicas.excludePatterns[{index}]"),
                    error.to_string(),
                );
            }
        }
    }

    fn delays(&mut self, spec: &ClusterSpec) {
        let stop = spec.stop_delay.unwrap_or(DEFAULT_STOP_DELAY);
        if spec.smart_shutdown_timeout.is_some_and(|smart| smart >= stop) {
            self.add(
                "spec.smartShutdownTimeout",
                format!("it must be lower than stopDelay ({stop} seconds): nothing would be left for a fast shutdown"),
            );
        }
    }

    fn initdb(&mut self, initdb: &BootstrapInitdb, major: Option<Major>) {
        let database = initdb.database.as_deref().unwrap_or(names::DEFAULT_DATABASE);
        self.identifier("spec.bootstrap.initdb.database", database);
        if ["template0", "template1"].contains(&database) {
            self.add("spec.bootstrap.initdb.database", format!("{database} is PostgreSQL's own"));
        }
        let owner = initdb.owner.as_deref().unwrap_or(database);
        self.identifier("spec.bootstrap.initdb.owner", owner);
        if owner == names::REPLICATION_USER || owner.starts_with("pg_") {
            self.add("spec.bootstrap.initdb.owner", format!("the role name {owner} is reserved"));
        }
        let is_size = |size: i32| (1..=1024).contains(&size) && size.count_ones() == 1;
        if initdb.wal_segment_size.is_some_and(|size| !is_size(size)) {
            self.add(
                "spec.bootstrap.initdb.walSegmentSize",
                "it must be a power of two from 1 to 1024",
            );
        }
        self.locale(initdb, major);
        self.sql_refs("spec.bootstrap.initdb.postInitSQLRefs", initdb.post_init_sql_refs.as_ref());
        self.sql_refs(
            "spec.bootstrap.initdb.postInitApplicationSQLRefs",
            initdb.post_init_application_sql_refs.as_ref(),
        );
        self.sql_refs(
            "spec.bootstrap.initdb.postInitTemplateSQLRefs",
            initdb.post_init_template_sql_refs.as_ref(),
        );
    }

    fn identifier(&mut self, path: &str, identifier: &str) {
        if identifier.is_empty() || identifier.len() > MAX_IDENTIFIER || identifier.contains('\0') {
            self.add(path, format!("a name in PostgreSQL has 1 to {MAX_IDENTIFIER} bytes"));
        }
    }

    fn locale(&mut self, initdb: &BootstrapInitdb, major: Option<Major>) {
        let provider = initdb.locale_provider;
        let icu = provider == Some(LocaleProvider::Icu);
        for (field, given) in [("icuLocale", &initdb.icu_locale), ("icuRules", &initdb.icu_rules)] {
            if given.is_some() && !icu {
                self.add(format!("spec.bootstrap.initdb.{field}"), "it needs localeProvider icu");
            }
        }
        if initdb.builtin_locale.is_some() && provider != Some(LocaleProvider::Builtin) {
            self.add("spec.bootstrap.initdb.builtinLocale", "it needs localeProvider builtin");
        }
        let Some(major) = major else { return };
        let too_old =
            |since: u32| format!("it needs PostgreSQL {since} or later, and the image has {major}");
        if provider.is_some() && !major.has_icu_provider() {
            self.add("spec.bootstrap.initdb.localeProvider", too_old(15));
        }
        if provider == Some(LocaleProvider::Builtin) && !major.has_builtin_provider() {
            self.add("spec.bootstrap.initdb.localeProvider", too_old(17));
        }
        if initdb.icu_rules.is_some() && !major.has_icu_rules() {
            self.add("spec.bootstrap.initdb.icuRules", too_old(16));
        }
    }

    fn sql_refs(&mut self, path: &str, refs: Option<&SqlRefs>) {
        let Some(refs) = refs else { return };
        for (list, keys) in
            [("secretRefs", &refs.secret_refs), ("configMapRefs", &refs.config_map_refs)]
        {
            for (index, key) in keys.iter().enumerate() {
                let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
                if empty(&key.name) || empty(&key.key) {
                    self.add(format!("{path}.{list}[{index}]"), "name and key are required");
                }
            }
        }
    }
}

/// True for variables that the agent, PostgreSQL or libpq read.
pub fn is_reserved(variable: &str, identity: Identity) -> bool {
    const NAMES: [&str; 5] = ["POD_NAME", "POD_UID", "POD_IP", "NAMESPACE", "CLUSTER_NAME"];
    variable.starts_with("PG")
        || variable.starts_with(identity.environment_prefix())
        || variable.starts_with(Identity::Matriarch.environment_prefix())
        || NAMES.contains(&variable)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! gives values")]
    fn findings(name: &str, spec: serde_json::Value) -> Vec<String> {
        let object = json!({ "apiVersion": "matriarch.dev/v1", "kind": "Cluster", "spec": spec });
        let object: crate::Cluster = serde_json::from_value(object).unwrap();
        cluster(name, &object.spec, None, Identity::Matriarch)
            .into_iter()
            .map(|finding| finding.path)
            .collect()
    }

    #[test]
    fn a_plain_cluster_has_no_findings() {
        assert!(findings("c", json!({ "instances": 3, "storage": { "size": "1Gi" } })).is_empty());
    }

    #[test]
    fn all_findings_come_at_once() {
        let spec = json!({
            "instances": 2,
            "postgresql": {
                "synchronous": { "method": "any", "number": 2 },
                "pg_hba": ["host all all ${podselector:x} md5", "a\nb"],
                "shared_preload_libraries": ["a,b"],
            },
            "storage": { "size": "0" },
            "walStorage": {},
            "resources": { "requests": { "memory": "2Gi" }, "limits": { "memory": "1Gi" } },
            "env": [{ "name": "PGDATA" }, { "name": "POD_NAME" }, { "name": "LANG" }],
            "smartShutdownTimeout": 1800,
            "failover": { "maximumLag": "much", "priority": { "d-1": 1 } },
            "bootstrap": { "initdb": { "walSegmentSize": 3, "owner": "pg_monitor", "icuRules": "&a < b" } },
        });
        assert_eq!(
            findings("C", spec),
            [
                "metadata.name",
                "spec.postgresql.synchronous.number",
                "spec.failover.maximumLag",
                "spec.failover.priority[\"d-1\"]",
                "spec.storage.size",
                "spec.walStorage.size",
                "spec.resources.requests.memory",
                "spec.env[\"PGDATA\"]",
                "spec.env[\"POD_NAME\"]",
                "spec.postgresql.pg_hba[0]",
                "spec.postgresql.pg_hba[1]",
                "spec.postgresql.shared_preload_libraries[0]",
                "spec.smartShutdownTimeout",
                "spec.bootstrap.initdb.owner",
                "spec.bootstrap.initdb.walSegmentSize",
                "spec.bootstrap.initdb.icuRules",
            ]
        );
    }

    #[test]
    fn a_tablespace_has_a_volume_and_a_name_of_its_own() {
        let all = |names: &[&str]| {
            let one = |name: &&str| json!({ "name": name, "storage": { "size": "1Gi" } });
            let tablespaces: Vec<_> = names.iter().map(one).collect();
            findings("c", json!({ "storage": { "size": "1Gi" }, "tablespaces": tablespaces }))
        };
        assert!(all(&["fast", "slow_1"]).is_empty());
        assert_eq!(all(&["a_b", "a-b"]), ["spec.tablespaces[1].name"]);
        assert_eq!(all(&["Ab", "aB"]), ["spec.tablespaces[1].name"]);
        assert_eq!(all(&["pg_a", "b/c"]), ["spec.tablespaces[0].name", "spec.tablespaces[1].name"]);
        let bare = json!({ "storage": { "size": "1Gi" }, "tablespaces": [{ "name": "a" }] });
        assert_eq!(findings("c", bare), ["spec.tablespaces[0].storage"]);
    }

    #[test]
    fn a_name_of_fifty_characters_is_the_longest() {
        let spec = json!({ "storage": { "size": "1Gi" } });
        assert!(findings(&"c".repeat(50), spec.clone()).is_empty());
        assert_eq!(findings(&"c".repeat(51), spec), ["metadata.name"]);
    }

    #[test]
    fn standbys_outside_the_cluster_count_for_the_quorum() {
        let spec = |number: i32| {
            json!({
                "instances": 1,
                "storage": { "size": "1Gi" },
                "postgresql": { "synchronous": {
                    "method": "any", "number": number, "standbyNamesPre": ["elsewhere"],
                } },
            })
        };
        assert!(findings("c", spec(1)).is_empty());
        assert_eq!(findings("c", spec(2)), ["spec.postgresql.synchronous.number"]);
    }

    #[test]
    fn the_maximum_lag_is_bytes_a_quantity_or_unlimited() {
        let read = |text: &str| maximum_lag(Some(&IntOrString::String(text.to_owned())));
        assert_eq!(maximum_lag(None), Some(DEFAULT_MAXIMUM_LAG));
        assert_eq!(read("16Mi"), Some(MaximumLag::Bytes(16 << 20)));
        assert_eq!(read("unlimited"), Some(MaximumLag::Unlimited));
        assert_eq!(maximum_lag(Some(&IntOrString::Int(-1))), None);
        assert_eq!(read("-1"), None);
    }
}
