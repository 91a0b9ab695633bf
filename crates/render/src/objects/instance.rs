//! The Instance: what one agent is told.

use matriarch_api::instance::{self, Bootstrap, InstanceSpec, RestartRequest, SwitchoverRequest};
use matriarch_api::labels::Label;
use matriarch_plan::{AgentBinary, Directive};
use serde_json::{Value, json};

use crate::resolve::Resolved;
use crate::setup::Owner;

/// The whole spec: what the planner decided, and what follows from the user's spec.
pub fn spec(
    owner: &Owner<'_>,
    resolved: &Resolved,
    name: &str,
    directive: &Directive,
) -> InstanceSpec {
    let mut spec = resolved.template.clone();
    owner.name().clone_into(&mut spec.cluster_name);
    spec.serial = directive.serial;
    spec.members = directive.members.iter().map(|member| member.as_str().to_owned()).collect();
    spec.bootstrap = if directive.initdb {
        Bootstrap::Initdb(Box::new(resolved.initdb.clone()))
    } else {
        Bootstrap::Clone
    };
    spec.bootstrap_primary = directive.bootstrap_primary;
    spec.fenced = directive.fenced;
    spec.leaving = directive.leaving;
    spec.excluded = directive.excluded;
    spec.switchover = directive.switchover.as_ref().map(|(id, to)| SwitchoverRequest {
        id: id.clone(),
        to: to.as_ref().map(|to| to.as_str().to_owned()),
    });
    spec.restart = directive.restart.as_ref().map(|id| RestartRequest { id: id.clone() });
    spec.agent = directive.agent.as_ref().map(binary);
    for tablespace in &mut spec.tablespaces {
        tablespace.create = directive.tablespaces.contains(&tablespace.name);
    }
    spec.failover.priority = resolved.priority(name);
    spec
}

/// The planner's part of a spec.
pub fn directive(spec: &InstanceSpec) -> Directive {
    Directive {
        serial: spec.serial,
        members: spec
            .members
            .iter()
            .map(|name| matriarch_plan::InstanceName(name.clone()))
            .collect(),
        initdb: matches!(spec.bootstrap, Bootstrap::Initdb(_)),
        bootstrap_primary: spec.bootstrap_primary,
        fenced: spec.fenced,
        leaving: spec.leaving,
        excluded: spec.excluded,
        switchover: spec
            .switchover
            .as_ref()
            .map(|wish| (wish.id.clone(), wish.to.clone().map(matriarch_plan::InstanceName))),
        restart: spec.restart.as_ref().map(|wish| wish.id.clone()),
        agent: spec.agent.as_ref().map(|told| AgentBinary {
            version: told.version.clone(),
            sha256: told.sha256.clone(),
            bytes: told.bytes,
            architecture: told.architecture.clone(),
            url: told.url.clone(),
            certificate_sha256: told.certificate_sha256.clone(),
        }),
        tablespaces: spec
            .tablespaces
            .iter()
            .filter(|tablespace| tablespace.create)
            .map(|tablespace| tablespace.name.clone())
            .collect(),
    }
}

fn binary(told: &AgentBinary) -> instance::AgentBinary {
    instance::AgentBinary {
        version: told.version.clone(),
        sha256: told.sha256.clone(),
        bytes: told.bytes,
        architecture: told.architecture.clone(),
        url: told.url.clone(),
        certificate_sha256: told.certificate_sha256.clone(),
    }
}

/// The object. Empty maps are left out: where an apply empties a map that had entries, a
/// kube-apiserver (tried: 1.34) makes it null and refuses that.
pub fn object(owner: &Owner<'_>, resolved: &Resolved, name: &str, directive: &Directive) -> Value {
    let mut metadata = owner.metadata(name);
    metadata["labels"][owner.label(Label::InstanceName)] = json!(name);
    json!({
        "apiVersion": owner.setup.identity.api_version(),
        "kind": "Instance",
        "metadata": metadata,
        "spec": without_empty_maps(json!(spec(owner, resolved, name, directive))),
    })
}

fn without_empty_maps(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| (name, without_empty_maps(field)))
            .filter(|(_, field)| field.as_object().is_none_or(|fields| !fields.is_empty()))
            .collect(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            value
        }
    }
}
