//! `spec.bootstrap.initdb` to what the agent runs.

use matriarch_api::cluster::{BootstrapInitdb, ClusterSpec, SqlRefs};
use matriarch_api::instance::{Initdb, KeyReference, KeyReferenceKind};
use matriarch_pg::version::Major;

fn written(user: &ClusterSpec) -> BootstrapInitdb {
    user.bootstrap.as_ref().and_then(|bootstrap| bootstrap.initdb.clone()).unwrap_or_default()
}

/// All options, with CloudNativePG's defaults: UTF8, C, C.
pub(super) fn initdb(user: &ClusterSpec, major: Option<Major>) -> Initdb {
    let written = written(user);
    let database = user.application_database();
    let owner = written.owner.clone().unwrap_or_else(|| database.clone());
    Initdb {
        database,
        owner,
        arguments: arguments(&written, major),
        post_init_sql: written.post_init_sql,
        post_init_template_sql: written.post_init_template_sql,
        post_init_application_sql: written.post_init_application_sql,
        post_init_sql_refs: references(written.post_init_sql_refs),
        post_init_template_sql_refs: references(written.post_init_template_sql_refs),
        post_init_application_sql_refs: references(written.post_init_application_sql_refs),
    }
}

fn arguments(written: &BootstrapInitdb, major: Option<Major>) -> Vec<String> {
    if !written.options.is_empty() {
        return written.options.clone();
    }
    let mut arguments = Vec::new();
    let mut option = |name: &str, value: &str| arguments.push(format!("--{name}={value}"));
    option("encoding", written.encoding.as_deref().unwrap_or("UTF8"));
    if let Some(locale) = &written.locale {
        option("locale", locale);
    }
    // A locale for everything is not undone by defaults for its parts.
    let default = if written.locale.is_some() { None } else { Some("C") };
    if let Some(collate) = written.locale_collate.as_deref().or(default) {
        option("lc-collate", collate);
    }
    if let Some(ctype) = written.locale_ctype.as_deref().or(default) {
        option("lc-ctype", ctype);
    }
    if let Some(provider) = written.locale_provider {
        option("locale-provider", provider.word());
    }
    if let Some(locale) = &written.icu_locale {
        option("icu-locale", locale);
    }
    if let Some(rules) = &written.icu_rules {
        option("icu-rules", rules);
    }
    if let Some(locale) = &written.builtin_locale {
        option("builtin-locale", locale);
    }
    if let Some(megabytes) = written.wal_segment_size {
        option("wal-segsize", &megabytes.to_string());
    }
    // On unless refused; PostgreSQL 18 has them on by itself and a switch to refuse them.
    let switch = match (written.data_checksums, major) {
        (Some(false), Some(major)) if major.number() >= 18 => Some("--no-data-checksums"),
        (Some(false), _) => None,
        (Some(true) | None, _) => Some("--data-checksums"),
    };
    arguments.extend(switch.map(str::to_owned));
    arguments
}

/// All Secrets first, then all ConfigMaps, as CloudNativePG runs them.
fn references(refs: Option<SqlRefs>) -> Vec<KeyReference> {
    let refs = refs.unwrap_or_default();
    let of = |kind: KeyReferenceKind| {
        move |selector: matriarch_api::cluster::KeySelector| KeyReference {
            kind,
            name: selector.name.unwrap_or_default(),
            key: selector.key.unwrap_or_default(),
        }
    };
    refs.secret_refs
        .into_iter()
        .map(of(KeyReferenceKind::Secret))
        .chain(refs.config_map_refs.into_iter().map(of(KeyReferenceKind::ConfigMap)))
        .collect()
}
