//! managedFields: who set which field.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Cause, Refusal, ResourceType, Subresource, builtin::Builtin, fields::FieldSet, identity,
    object, typed,
};

/// One entry of managedFields.
#[derive(Clone, Debug, PartialEq)]
struct Manager {
    name: String,
    apply: bool,
    api_version: String,
    subresource: String,
    time: String,
    set: FieldSet,
}

/// Who writes, and by which way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a> {
    pub name: &'a str,
    pub api_version: &'a str,
    pub subresource: Subresource,
    pub now: Timestamp,
}

impl Writer<'_> {
    fn entry(&self, apply: bool, set: FieldSet) -> Manager {
        Manager {
            name: self.name.to_owned(),
            apply,
            api_version: self.api_version.to_owned(),
            subresource: match self.subresource {
                Subresource::None => String::new(),
                Subresource::Status => "status".into(),
                Subresource::Scale => "scale".into(),
            },
            time: identity::time(self.now),
            set,
        }
    }
}

impl Manager {
    /// Appliers are known by name, updaters by name and version.
    fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.apply == other.apply
            && self.subresource == other.subresource
            && (self.apply || self.api_version == other.api_version)
    }

    fn shown(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.apply {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

fn read(object: &Value) -> Vec<Manager> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| Manager {
            name: text(&entry["manager"]),
            apply: entry["operation"] == "Apply",
            api_version: text(&entry["apiVersion"]),
            subresource: text(&entry["subresource"]),
            time: text(&entry["time"]),
            set: FieldSet::parse(&entry["fieldsV1"]),
        })
        .collect()
}

fn write(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.set.is_empty());
    managers.sort_by(|left, right| {
        let key = |one: &Manager| {
            (
                !one.apply,
                one.time.clone(),
                one.name.clone(),
                one.api_version.clone(),
                one.subresource.clone(),
            )
        };
        key(left).cmp(&key(right))
    });
    let entries: Vec<Value> = managers
        .iter()
        .map(|manager| {
            let mut entry = json!({
                "manager": manager.name,
                "operation": if manager.apply { "Apply" } else { "Update" },
                "apiVersion": manager.api_version,
                "time": manager.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": manager.set.to_value(),
            });
            if !manager.subresource.is_empty() {
                entry["subresource"] = manager.subresource.as_str().into();
            }
            entry
        })
        .collect();
    let metadata = object::metadata(object);
    if entries.is_empty() {
        object::remove(metadata, "managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.into());
    }
}

/// Fields that nobody manages: the server's own.
fn strip(set: &mut FieldSet) {
    for path in [&["f:apiVersion"][..], &["f:kind"]] {
        set.remove_below(path);
    }
    for field in [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
        "f:deletionTimestamp",
        "f:deletionGracePeriodSeconds",
    ] {
        set.remove_below(&["f:metadata", field]);
    }
    let whole = FieldSet::parse(&json!({"f:metadata": {}}));
    *set = set.difference(&whole);
}

/// What an object of Go's zero value has in JSON: fields that are there before anybody set them.
fn zero(resource: &ResourceType) -> Value {
    let own = match resource.builtin {
        Some(Builtin::Pod) => json!({"spec": {"containers": null}, "status": {}}),
        Some(Builtin::PersistentVolumeClaim) => json!({"spec": {"resources": {}}, "status": {}}),
        Some(Builtin::Service) => json!({"spec": {}, "status": {"loadBalancer": {}}}),
        Some(Builtin::Namespace | Builtin::Node | Builtin::PersistentVolume) => {
            json!({"spec": {}, "status": {}})
        }
        Some(Builtin::Lease) => json!({"spec": {}}),
        Some(Builtin::PodDisruptionBudget) => json!({"spec": {}, "status": {
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}}),
        Some(Builtin::EndpointSlice) => {
            json!({"endpoints": null, "ports": null, "addressType": ""})
        }
        Some(Builtin::Event) => json!({"involvedObject": {}, "source": {}, "firstTimestamp": null,
            "lastTimestamp": null, "eventTime": null, "reportingComponent": "",
            "reportingInstance": ""}),
        Some(Builtin::Role | Builtin::ClusterRole) => json!({"rules": null}),
        Some(Builtin::RoleBinding | Builtin::ClusterRoleBinding) => {
            json!({"roleRef": {"apiGroup": "", "kind": "", "name": ""}})
        }
        Some(Builtin::StorageClass) => json!({"provisioner": ""}),
        Some(Builtin::CustomResourceDefinition) => json!({"spec": {"group": "",
            "names": {"plural": "", "kind": ""}, "scope": "", "versions": null},
            "status": {"conditions": null, "acceptedNames": {"plural": "", "kind": ""},
                "storedVersions": null}}),
        Some(Builtin::Secret | Builtin::ConfigMap | Builtin::ServiceAccount) | None => json!({}),
    };
    let mut zero = json!({"metadata": {}});
    object::members(&mut zero).extend(own.as_object().cloned().unwrap_or_default());
    zero
}

/// Records an update: what the writer changed is the writer's, what is gone is nobody's.
pub(crate) fn record(
    resource: &ResourceType,
    schema: &Value,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) {
    // An update that carries one empty entry resets the list; one that carries entries replaces
    // it, which is how kubectl hands fields from one manager to another.
    let given = &new["metadata"]["managedFields"];
    let reset = given
        .as_array()
        .is_some_and(|list| matches!(list.as_slice(), [Value::Object(one)] if one.is_empty()));
    let sent = read(new);
    let mut managers = match old {
        Some(_) if reset => Vec::new(),
        Some(old) if sent.is_empty() || writer.subresource != Subresource::None => read(old),
        Some(_) => sent,
        None => Vec::new(),
    };
    let zero_value;
    let before = match old {
        Some(old) => old,
        None => {
            zero_value = zero(resource);
            &zero_value
        }
    };
    let comparison = typed::compare(schema, before, new);
    let mut changed = comparison.changed();
    strip(&mut changed);
    let mut removed = comparison.removed.clone();
    strip(&mut removed);
    for manager in &mut managers {
        manager.set = manager.set.difference(&changed).difference(&removed);
    }
    if !changed.is_empty() {
        let mine = writer.entry(false, changed);
        match managers.iter_mut().find(|manager| manager.is(&mine)) {
            Some(present) => {
                present.set = present.set.union(&mine.set);
                present.time = mine.time;
            }
            None => managers.push(mine),
        }
    }
    write(new, managers);
}

/// Applies a configuration: server-side apply.
pub(crate) fn apply(
    schema: &Value,
    live: &Value,
    config: &Value,
    force: bool,
    has_status: bool,
    writer: &Writer<'_>,
) -> Result<Value, Refusal> {
    let mut set = typed::field_set(schema, config);
    strip(&mut set);
    match writer.subresource {
        Subresource::Status => set.retain_first(&["f:status", "f:metadata"]),
        Subresource::None | Subresource::Scale if has_status => set.remove_below(&["f:status"]),
        Subresource::None | Subresource::Scale => {}
    }
    let mut merged = live.clone();
    typed::merge(schema, &mut merged, config);
    let mut managers = read(live);
    let mine = writer.entry(true, set);
    let last = managers.iter().position(|manager| manager.is(&mine)).map(|at| managers.remove(at));
    if let Some(last) = &last {
        let kept = managers.iter().fold(mine.set.clone(), |all, one| all.union(&one.set));
        let gone = last.set.with_parents().difference(&kept.with_parents());
        typed::remove(schema, &mut merged, &gone);
    }
    let comparison = typed::compare(schema, live, &merged);
    let mut changed = comparison.changed();
    strip(&mut changed);
    let conflicts: Vec<(usize, FieldSet)> = managers
        .iter()
        .enumerate()
        .map(|(index, manager)| (index, manager.set.intersection(&changed)))
        .filter(|(_, taken)| !taken.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflict(&managers, &conflicts));
    }
    for (index, taken) in conflicts {
        managers[index].set = managers[index].set.difference(&taken);
    }
    let mut removed = comparison.removed;
    strip(&mut removed);
    for manager in &mut managers {
        manager.set = manager.set.difference(&removed);
    }
    let unchanged = changed.is_empty() && removed.is_empty();
    let mut mine = mine;
    if let Some(last) = last
        && unchanged
        && last.set == mine.set
    {
        mine.time = last.time;
    }
    managers.push(mine);
    write(&mut merged, managers);
    Ok(merged)
}

fn conflict(managers: &[Manager], conflicts: &[(usize, FieldSet)]) -> Refusal {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (index, taken) in conflicts {
        let who = managers[*index].shown();
        lines.push(format!("conflicts with {who}:"));
        for path in taken.paths() {
            lines.push(format!("- {path}"));
            causes.push(Cause {
                reason: "FieldManagerConflict",
                field: path,
                message: format!("conflict with {who}"),
            });
        }
    }
    let detail = match causes.as_slice() {
        [only] => format!("{}: {}", only.message, only.field),
        _ => lines.join("\n"),
    };
    Refusal::ApplyConflict { causes, detail }
}

/// Equality but for the times of managedFields: a write that changes nothing else is none.
pub(crate) fn same_but_times(left: &Value, right: &Value) -> bool {
    let timeless = |object: &Value| {
        let mut copy = object.clone();
        let entries =
            object::metadata(&mut copy).get_mut("managedFields").and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten() {
            object::remove(object::members(entry), "time");
        }
        copy
    };
    left == right || timeless(left) == timeless(right)
}
