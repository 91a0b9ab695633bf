//! Server-side apply, and the addresses of Services.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Moment, Store, Subresource, Target, WriteOptions, Written, present,
    write::{Revision, version_of},
};
use crate::{
    Cause, Refusal, ResourceId, ResourceType,
    builtin::Builtin,
    conform, managers,
    managers::{Reset, Writer},
    object,
    store::subject_kind,
};

impl Store {
    /// Applies a configuration: creates the object, or makes the manager's fields what the
    /// configuration says and removes those that it does not name any more.
    ///
    /// # Errors
    /// [`Refusal::ApplyConflict`] where a field is another manager's and `force` is not set, and
    /// what creations and updates refuse.
    pub fn apply(
        &mut self,
        target: &Target<'_>,
        config: Value,
        options: &WriteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Written, Refusal> {
        let resource = self.registry.find(target.resource)?;
        if target.subresource == Subresource::Scale {
            return Err(Refusal::UnsupportedMediaType(
                "server-side apply of a scale is not served; use a merge patch".into(),
            ));
        }
        if config["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
            return Err(Refusal::BadRequest("metadata.managedFields must be nil".into()));
        }
        let config = conform::configuration(&resource, target, config)?;
        let found = match self.find(&resource, target) {
            Ok(found) => Some(found),
            Err(_) if target.subresource == Subresource::None => None,
            Err(refusal) => return Err(refusal),
        };
        let schema = self.kept_schema(&resource, target)?;
        let has_status = version_of(&resource, target)?.status;
        let reset = Reset::of(&resource, has_status, target.subresource);
        let api_version = resource.api_version(&target.resource.version);
        let writer = Writer {
            name: &options.manager,
            api_version: &api_version,
            subresource: target.subresource,
            now: moment.now,
        };
        let applied = |live: &Value| {
            managers::apply(&resource, &schema, live, &config, options.force, reset, &writer)
        };
        let Some(old) = found else {
            if !object::uid(&config).is_empty() {
                return Err(Refusal::Conflict {
                    subject: super::subject(&resource, target.name),
                    detail: super::other_uid(
                        &resource,
                        target.namespace,
                        target.name,
                        (object::uid(&config), ""),
                    ),
                });
            }
            let start = json!({"apiVersion": config["apiVersion"], "kind": config["kind"],
                "metadata": {"name": target.name}});
            let object = applied(&start)?;
            return self.insert(&resource, target, object, true, options, moment);
        };
        let mut new = applied(&old)?;
        if resource.builtin.is_none() {
            conform::default(&schema, &mut new);
        }
        let version = object::resource_version(&config).to_owned();
        if !version.is_empty() {
            object::metadata(&mut new).insert("resourceVersion".into(), version.into());
        }
        let revision = Revision { resource: &resource, target, old, new, recorded: true };
        self.replace(revision, Vec::new(), options, moment)
    }

    /// The schema of the form in which a resource's objects are kept.
    pub(super) fn kept_schema(
        &self,
        resource: &ResourceType,
        target: &Target<'_>,
    ) -> Result<Arc<Value>, Refusal> {
        if resource.builtin == Some(Builtin::Event) {
            let core = self.registry.find(&ResourceId::new("", "v1", "events"))?;
            return core
                .version("v1")
                .map(|one| Arc::clone(&one.schema))
                .ok_or(Refusal::NoResource);
        }
        version_of(resource, target).map(|version| Arc::clone(&version.schema))
    }

    /// Gives a Service its address, or checks the one that it asks for.
    pub(super) fn allocate_address(
        &self,
        resource: &ResourceType,
        service: &mut Value,
        moment: &mut Moment<'_>,
    ) -> Result<(), Refusal> {
        let spec = &service["spec"];
        let asked = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
        if spec["type"] == "ExternalName" || asked == "None" {
            return Ok(());
        }
        let used: Vec<&str> = self
            .kept("", "services", None)
            .filter_map(|(_, one)| one["spec"]["clusterIP"].as_str())
            .collect();
        let refuse = |shown: &str, detail: &str| Refusal::Invalid {
            subject: subject_kind(resource, object::name(service)),
            causes: vec![Cause::invalid("spec.clusterIPs", shown, detail)],
        };
        let address = if asked.is_empty() {
            self.free_address(&used, moment).ok_or_else(|| {
                Refusal::Internal("failed to allocate a serviceIP: range is full".into())
            })?
        } else if used.contains(&asked.as_str()) {
            return Err(refuse(
                &format!("[]string{{{asked:?}}}"),
                &format!("failed to allocate IP {asked}: provided IP is already allocated"),
            ));
        } else {
            asked
        };
        object::set(service, &["spec", "clusterIP"], address.as_str().into());
        object::set(service, &["spec", "clusterIPs"], json!([address]));
        Ok(())
    }

    fn free_address(&self, used: &[&str], moment: &mut Moment<'_>) -> Option<String> {
        let (network, prefix) = self.options.service_network;
        let size = 1_u64 << (32 - u32::from(prefix.clamp(1, 30)));
        let start = (moment.random)() % size;
        // Neither the network's own address nor its broadcast address.
        (0..size)
            .map(|step| (start + step) % size)
            .filter(|offset| *offset > 0 && *offset < size - 1)
            .filter_map(|offset| u32::try_from(offset).ok())
            .map(|offset| std::net::Ipv4Addr::from(network | offset).to_string())
            .find(|address| !used.contains(&address.as_str()))
    }

    /// A pod is given to a node (`pods/binding`).
    ///
    /// # Errors
    /// [`Refusal::Conflict`] where the pod has a node or is being deleted.
    pub fn bind(&mut self, target: &Target<'_>, binding: &Value) -> Result<Value, Refusal> {
        let resource = self.registry.find(target.resource)?;
        let found = self.find(&resource, target)?;
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        let assigned = found["spec"]["nodeName"].as_str().unwrap_or_default();
        if !assigned.is_empty() || object::is_deleting(&found) {
            return Err(Refusal::Conflict {
                subject: super::subject(&resource, target.name),
                detail: format!("pod {} is already assigned to node {assigned:?}", target.name),
            });
        }
        let mut bound = (*found).clone();
        object::set(&mut bound, &["spec", "nodeName"], node.into());
        self.commit(super::key(&resource, target.namespace, target.name), Some(bound));
        Ok(
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        )
    }

    /// Adds what kube-apiserver's admission and the kind's own rules add to a built-in object on
    /// every write, after managedFields are made.
    pub(super) fn complete(resource: &ResourceType, object: &mut Value, old: Option<&Value>) {
        let Some(kind) = resource.builtin else { return };
        if let Some(old) = old
            && kind == Builtin::Service
            && object["spec"]["type"] != "ExternalName"
        {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                object::set_default(object, &["spec", field], old["spec"][field].clone());
            }
        }
        crate::defaults::admit(kind, object);
    }
}

/// The answer to a write as the version of the request shows it.
pub(super) fn answer(
    resource: &ResourceType,
    target: &Target<'_>,
    object: &Value,
    created: bool,
    warnings: Vec<String>,
) -> Written {
    Written { object: present(resource, &target.resource.version, object), created, warnings }
}
