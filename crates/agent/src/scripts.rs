//! SQL of the user's, from Secrets and ConfigMaps.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use matriarch_api::instance::{Initdb, InstanceSpec, KeyReference, KeyReferenceKind};
use matriarch_api::reasons::failure;

use crate::access;
use crate::driver::context::{Context, Failed};
use crate::postgres::initdb::Scripts;

/// Reads everything that the options refer to.
///
/// # Errors
/// If something is missing; nothing is initialised without it.
pub async fn read(
    context: &Context,
    spec: &InstanceSpec,
    options: &Initdb,
) -> Result<Scripts, Failed> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.options.namespace);
    Ok(Scripts {
        passwords: access::statements(&secrets, &spec.secrets, &spec.access).await,
        init: all(context, &options.post_init_sql_refs).await?,
        template: all(context, &options.post_init_template_sql_refs).await?,
        application: all(context, &options.post_init_application_sql_refs).await?,
    })
}

async fn all(context: &Context, references: &[KeyReference]) -> Result<Vec<String>, Failed> {
    let mut texts = Vec::new();
    for reference in references {
        texts.push(one(context, reference).await?);
    }
    Ok(texts)
}

async fn one(context: &Context, reference: &KeyReference) -> Result<String, Failed> {
    let namespace = &context.options.namespace;
    let missing = |why: String| {
        let KeyReference { kind, name, key } = reference;
        Failed::because(
            failure::SQL_REFERENCE_MISSING,
            format!("{kind:?} {name}, key {key}: {why}"),
        )
    };
    let found = match reference.kind {
        KeyReferenceKind::Secret => {
            let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
            let secret =
                api.get(&reference.name).await.map_err(|error| missing(error.to_string()))?;
            secret.data.and_then(|mut data| data.remove(&reference.key)).map(|bytes| {
                String::from_utf8(bytes.0).map_err(|_| missing("it is not UTF-8".to_owned()))
            })
        }
        KeyReferenceKind::ConfigMap => {
            let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
            let map = api.get(&reference.name).await.map_err(|error| missing(error.to_string()))?;
            map.data.and_then(|mut data| data.remove(&reference.key)).map(Ok)
        }
    };
    found.unwrap_or_else(|| Err(missing("there is no such key".to_owned())))
}
