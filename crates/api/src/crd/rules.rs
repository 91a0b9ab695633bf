//! CEL rules: what CloudNativePG's webhook validates and CEL can say. Rules with `oldSelf` hold
//! for changes. What CEL cannot say is in [`crate::validate`].

use serde_json::{Value, json};

use super::marks::UnknownPath;
use super::structural::node_mut;
use crate::identity::{Identity, Kind};

/// A rule at a path of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where.
    pub path: &'static str,
    /// What must be true.
    pub rule: String,
    /// What the user is told otherwise.
    pub message: String,
}

fn rule(path: &'static str, rule: &str, message: &str) -> Rule {
    Rule { path, rule: rule.to_owned(), message: message.to_owned() }
}

/// All rules of a kind.
pub fn of(kind: Kind, identity: Identity) -> Vec<Rule> {
    match kind {
        Kind::Cluster => {
            let mut rules = cluster();
            rules.extend(storage());
            rules.extend(replication());
            rules.extend(bootstrap());
            rules.extend(lists(identity));
            rules
        }
        Kind::Instance | Kind::ImageCatalog | Kind::ClusterImageCatalog => vec![],
    }
}

/// Puts all rules of a kind into its schema.
pub fn apply(kind: Kind, identity: Identity, schema: &mut Value) -> Result<(), UnknownPath> {
    for Rule { path, rule, message } in of(kind, identity) {
        let unknown = || UnknownPath { kind: kind.name(), path: path.to_owned() };
        let node = node_mut(schema, path).and_then(Value::as_object_mut).ok_or_else(unknown)?;
        let rules = node.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        if let Value::Array(rules) = rules {
            rules.push(json!({ "rule": rule, "message": message }));
        }
    }
    Ok(())
}

/// An optional field that cannot change once written, nor be written later.
fn unchanged(field: &str) -> String {
    format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    )
}

fn cluster() -> Vec<Rule> {
    vec![
        rule(
            "",
            "self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must be a DNS label as in RFC 1035 (lower-case letters, digits and hyphens, a letter first) of at most 50 characters",
        ),
        rule(
            "spec",
            "!(has(self.imageName) && has(self.imageCatalogRef))",
            "imageName and imageCatalogRef are mutually exclusive",
        ),
        rule(
            "spec.imageName",
            "self.matches('^[^@]*:[0-9][^:/@]*(@sha256:[0-9a-f]{64})?$')",
            "imageName must have a tag that begins with PostgreSQL's version: latest, no tag and a digest alone do not tell it",
        ),
        rule("spec", "has(self.storage)", "storage is required: the data needs a volume"),
        rule("spec", &unchanged("postgresUID"), "postgresUID cannot be changed"),
        rule("spec", &unchanged("postgresGID"), "postgresGID cannot be changed"),
        rule("spec", &unchanged("serviceAccountName"), "serviceAccountName cannot be changed"),
        rule(
            "spec",
            "!(has(self.serviceAccountName) && has(self.serviceAccountTemplate))",
            "serviceAccountName and serviceAccountTemplate are mutually exclusive",
        ),
        rule(
            "spec",
            "!(has(self.primaryUpdateStrategy) && self.primaryUpdateStrategy == 'supervised' && self.instances == 1)",
            "primaryUpdateStrategy supervised needs more than one instance",
        ),
        rule(
            "spec",
            "!(has(self.ephemeralVolumeSource) && has(self.ephemeralVolumesSizeLimit) && has(self.ephemeralVolumesSizeLimit.temporaryData))",
            "ephemeralVolumeSource and ephemeralVolumesSizeLimit.temporaryData are mutually exclusive",
        ),
        rule(
            "spec.certificates",
            "!has(self.serverTLSSecret) || has(self.serverCASecret)",
            "certificates.serverTLSSecret needs serverCASecret",
        ),
        rule(
            "spec.certificates",
            "!(has(self.serverTLSSecret) && has(self.serverAltDNSNames) && self.serverAltDNSNames.size() > 0)",
            "certificates.serverAltDNSNames cannot be put into the certificate of serverTLSSecret",
        ),
        rule(
            "spec.certificates",
            "!has(self.replicationTLSSecret) || has(self.clientCASecret)",
            "certificates.replicationTLSSecret needs clientCASecret",
        ),
        rule(
            "spec.primaryLease",
            "(has(self.leaseDurationSeconds) ? self.leaseDurationSeconds : 15) > (has(self.renewDeadlineSeconds) ? self.renewDeadlineSeconds : 10)",
            "primaryLease.leaseDurationSeconds (15 if absent) must be greater than renewDeadlineSeconds (10 if absent)",
        ),
        rule(
            "spec.primaryLease",
            "5 * (has(self.renewDeadlineSeconds) ? self.renewDeadlineSeconds : 10) > 6 * (has(self.retryPeriodSeconds) ? self.retryPeriodSeconds : 2)",
            "primaryLease.renewDeadlineSeconds (10 if absent) must be more than 1.2 times retryPeriodSeconds (2 if absent)",
        ),
    ]
}

fn storage() -> Vec<Rule> {
    let mut rules = vec![
        rule(
            "spec",
            "!has(oldSelf.walStorage) || has(self.walStorage)",
            "walStorage cannot be removed",
        ),
        rule(
            "spec",
            "!has(oldSelf.tablespaces) || oldSelf.tablespaces.all(o, has(self.tablespaces) && self.tablespaces.exists(t, t.name == o.name))",
            "tablespaces cannot be removed",
        ),
        rule(
            "spec.tablespaces[].name",
            "!self.startsWith('pg_')",
            "names of tablespaces that begin with pg_ are PostgreSQL's own",
        ),
    ];
    for path in ["spec.storage", "spec.walStorage", "spec.tablespaces[].storage"] {
        rules.push(rule(
            path,
            "has(self.size) || (has(self.pvcTemplate) && has(self.pvcTemplate.resources) && has(self.pvcTemplate.resources.requests) && 'storage' in self.pvcTemplate.resources.requests)",
            "size or pvcTemplate.resources.requests.storage is required",
        ));
        rules.push(rule(
            path,
            "!has(self.size) || !isQuantity(self.size) || quantity(self.size).isGreaterThan(quantity('0'))",
            "size must be greater than 0",
        ));
        rules.push(rule(
            path,
            "!has(self.size) || !has(oldSelf.size) || !isQuantity(self.size) || !isQuantity(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            "size cannot shrink",
        ));
    }
    rules
}

fn replication() -> Vec<Rule> {
    vec![
        rule(
            "spec",
            "(has(self.minSyncReplicas) ? self.minSyncReplicas : 0) <= (has(self.maxSyncReplicas) ? self.maxSyncReplicas : 0)",
            "minSyncReplicas cannot be greater than maxSyncReplicas",
        ),
        rule(
            "spec",
            "!has(self.maxSyncReplicas) || self.maxSyncReplicas == 0 || self.maxSyncReplicas < self.instances",
            "maxSyncReplicas must be lower than the number of instances",
        ),
        rule(
            "spec",
            "!(has(self.postgresql) && has(self.postgresql.synchronous) && has(self.maxSyncReplicas) && self.maxSyncReplicas > 0)",
            "minSyncReplicas and maxSyncReplicas cannot be used together with postgresql.synchronous",
        ),
        rule(
            "spec",
            "!(has(self.postgresql) && has(self.postgresql.synchronous)) || self.postgresql.synchronous.number < self.instances + (has(self.postgresql.synchronous.standbyNamesPre) ? self.postgresql.synchronous.standbyNamesPre.size() : 0) + (has(self.postgresql.synchronous.standbyNamesPost) ? self.postgresql.synchronous.standbyNamesPost.size() : 0)",
            "postgresql.synchronous.number must be lower than instances plus standbyNamesPre plus standbyNamesPost: no commit could be acknowledged",
        ),
        rule(
            "spec.postgresql.synchronous",
            "!(has(self.dataDurability) && self.dataDurability == 'preferred') || ((!has(self.standbyNamesPre) || self.standbyNamesPre.size() == 0) && (!has(self.standbyNamesPost) || self.standbyNamesPost.size() == 0))",
            "dataDurability preferred needs empty standbyNamesPre and standbyNamesPost",
        ),
        rule(
            "spec.postgresql.synchronous",
            "!(has(self.podFailureDomainKeys) && self.podFailureDomainKeys.size() > 0 && has(self.nodeFailureDomainKeys) && self.nodeFailureDomainKeys.size() > 0)",
            "podFailureDomainKeys and nodeFailureDomainKeys are mutually exclusive",
        ),
        rule(
            "spec.postgresql.synchronous",
            "!(has(self.failoverQuorum) && self.failoverQuorum) || self.number > (has(self.standbyNamesPre) ? self.standbyNamesPre.size() : 0) + (has(self.standbyNamesPost) ? self.standbyNamesPost.size() : 0)",
            "failoverQuorum needs a number greater than standbyNamesPre plus standbyNamesPost",
        ),
        rule(
            "spec.replicationSlots.highAvailability",
            &unchanged("slotPrefix"),
            "replicationSlots.highAvailability.slotPrefix cannot be changed",
        ),
        rule(
            "spec",
            "!(has(oldSelf.replicationSlots) && has(oldSelf.replicationSlots.highAvailability) && oldSelf.replicationSlots.highAvailability.enabled) || (has(self.replicationSlots) && has(self.replicationSlots.highAvailability))",
            "replicationSlots.highAvailability cannot be removed while it is enabled: set enabled to false first",
        ),
        rule(
            "spec.replica",
            "!(has(self.enabled) && has(self.primary))",
            "replica.enabled and replica.primary are mutually exclusive",
        ),
        rule(
            "spec.replica",
            "!(has(self.promotionToken) && has(self.minApplyDelay))",
            "replica.promotionToken and replica.minApplyDelay are mutually exclusive",
        ),
    ]
}

/// `field` of `spec`, reached by `guards`, names an entry of externalClusters.
fn external(guards: &[&str], name: &str) -> Rule {
    // `import` is a word of CEL; Kubernetes escapes such fields.
    let escaped = |path: &str| path.replace(".import", ".__import__");
    let absent: String =
        guards.iter().map(|guard| format!("!has(self.{}) || ", escaped(guard))).collect();
    let field = escaped(name);
    Rule {
        path: "spec",
        rule: format!(
            "{absent}!has(self.{field}) || (has(self.externalClusters) && self.externalClusters.exists(e, e.name == self.{field}))"
        ),
        message: format!("{name} must be the name of an entry of externalClusters"),
    }
}

fn bootstrap() -> Vec<Rule> {
    vec![
        rule(
            "spec.bootstrap",
            "[has(self.initdb), has(self.recovery), has(self.pg_basebackup)].filter(m, m).size() <= 1",
            "only one of initdb, recovery and pg_basebackup can be given",
        ),
        rule(
            "spec.bootstrap.initdb",
            "!has(self.icuLocale) || (has(self.localeProvider) && self.localeProvider == 'icu')",
            "icuLocale needs localeProvider icu",
        ),
        rule(
            "spec.bootstrap.initdb",
            "!has(self.icuRules) || (has(self.localeProvider) && self.localeProvider == 'icu')",
            "icuRules needs localeProvider icu",
        ),
        rule(
            "spec.bootstrap.initdb",
            "!has(self.builtinLocale) || (has(self.localeProvider) && self.localeProvider == 'builtin')",
            "builtinLocale needs localeProvider builtin",
        ),
        rule(
            "spec.bootstrap.initdb.import",
            "self.type != 'microservice' || (self.databases.size() == 1 && self.databases[0] != '*' && (!has(self.roles) || self.roles.size() == 0))",
            "import of type microservice takes exactly one database, by name, and no roles",
        ),
        rule(
            "spec.bootstrap.initdb.import",
            "self.type != 'monolith' || (self.databases.size() >= 1 && (self.databases.size() == 1 || !('*' in self.databases)) && (!has(self.postImportApplicationSQL) || self.postImportApplicationSQL.size() == 0))",
            "import of type monolith takes at least one database, * alone, and no postImportApplicationSQL",
        ),
        rule(
            "spec.bootstrap.recovery",
            "[has(self.backup), has(self.source), has(self.volumeSnapshots)].filter(m, m).size() >= 1",
            "recovery needs backup, source or volumeSnapshots",
        ),
        rule(
            "spec.bootstrap.recovery.recoveryTarget",
            "[has(self.targetXID), has(self.targetName), has(self.targetLSN), has(self.targetTime), has(self.targetImmediate) && self.targetImmediate].filter(m, m).size() <= 1",
            "only one of targetXID, targetName, targetLSN, targetTime and targetImmediate can be given",
        ),
        external(&["bootstrap", "bootstrap.recovery"], "bootstrap.recovery.source"),
        external(&["bootstrap", "bootstrap.pg_basebackup"], "bootstrap.pg_basebackup.source"),
        external(
            &["bootstrap", "bootstrap.initdb", "bootstrap.initdb.import"],
            "bootstrap.initdb.import.source.externalCluster",
        ),
        external(&["replica"], "replica.source"),
    ]
}

fn lists(identity: Identity) -> Vec<Rule> {
    let prefix = identity.environment_prefix();
    let own = Identity::Matriarch.environment_prefix();
    vec![
        Rule {
            path: "spec.env[]",
            rule: format!(
                "!(self.name.startsWith('PG') || self.name.startsWith('{prefix}') || self.name.startsWith('{own}') || self.name in ['POD_NAME', 'POD_UID', 'POD_IP', 'NAMESPACE', 'CLUSTER_NAME'])"
            ),
            message: format!(
                "the name of this environment variable is reserved: PG*, {prefix}*, {own}*, POD_NAME, POD_UID, POD_IP, NAMESPACE, CLUSTER_NAME"
            ),
        },
        rule(
            "spec.affinity.tolerations[]",
            "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
            "a toleration without key needs operator Exists",
        ),
        rule(
            "spec.affinity.tolerations[]",
            "!(has(self.operator) && self.operator == 'Exists' && has(self.value) && self.value != '')",
            "a toleration with operator Exists has no value",
        ),
        rule(
            "spec.externalClusters[]",
            "has(self.connectionParameters) || has(self.barmanObjectStore) || has(self.plugin)",
            "an external cluster needs connectionParameters, barmanObjectStore or plugin",
        ),
        rule(
            "spec.managed.roles[]",
            "!(self.name in ['postgres', 'streaming_replica']) && !self.name.startsWith('pg_')",
            "the name of this role is reserved: postgres, streaming_replica, pg_*",
        ),
        rule(
            "spec.managed.roles[]",
            "!(has(self.passwordSecret) && has(self.disablePassword) && self.disablePassword)",
            "passwordSecret and disablePassword are mutually exclusive",
        ),
        rule(
            "spec.managed.services.additional[].serviceTemplate",
            "!(has(self.spec) && has(self.spec.selector))",
            "a managed service cannot have a selector: selectorType says which instances",
        ),
        rule(
            "spec.plugins",
            "self.filter(p, has(p.isWALArchiver) && p.isWALArchiver && (!has(p.enabled) || p.enabled)).size() <= 1",
            "only one plugin can archive WAL",
        ),
        rule(
            "spec",
            "!(has(self.backup) && has(self.backup.barmanObjectStore) && has(self.plugins) && self.plugins.exists(p, has(p.isWALArchiver) && p.isWALArchiver && (!has(p.enabled) || p.enabled)))",
            "backup.barmanObjectStore cannot be used together with a plugin that archives WAL",
        ),
    ]
}
