//! managedFields: who set which field.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Cause, Refusal, ResourceType, Subresource, builtin::Builtin, event, fields::FieldSet, identity,
    object, typed, typed::Comparison,
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

/// The entries of an object; their fields have the names under which the object is kept.
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
            set: event::kept_fields(&text(&entry["apiVersion"]), &entry["fieldsV1"]),
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
                "fieldsType": "FieldsV1",
                "fieldsV1": event::shown_fields(&manager.api_version, manager.set.to_value()),
            });
            if !manager.time.is_empty() {
                entry["time"] = manager.time.as_str().into();
            }
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

/// Fields that a path of requests never changes, whatever a request says: nobody gets them by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reset(&'static [&'static [&'static str]]);

impl Reset {
    /// The fields of a resource's own path or of its status'.
    pub fn of(resource: &ResourceType, has_status: bool, subresource: Subresource) -> Self {
        match subresource {
            Subresource::None | Subresource::Scale if has_status => Self(&[&["f:status"]]),
            Subresource::None | Subresource::Scale => Self(&[]),
            Subresource::Status => match resource.builtin {
                Some(Builtin::Pod) => Self(&[
                    &["f:spec"],
                    &["f:metadata", "f:deletionTimestamp"],
                    &["f:metadata", "f:ownerReferences"],
                ]),
                Some(Builtin::CustomResourceDefinition) => Self(&[&["f:spec"], &["f:metadata"]]),
                Some(_) | None => Self(&[&["f:spec"]]),
            },
        }
    }

    fn filter(self, set: &mut FieldSet) {
        self.0.iter().for_each(|path| set.remove_below(path));
    }
}

/// What a write changed and removed, without the server's own fields.
fn changes(comparison: &Comparison, reset: Reset) -> (FieldSet, FieldSet) {
    let (mut changed, mut removed) = (comparison.changed(), comparison.removed.clone());
    for set in [&mut changed, &mut removed] {
        strip(set);
        reset.filter(set);
    }
    (changed, removed)
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
    reset: Reset,
    writer: &Writer<'_>,
) {
    // An update that carries an empty list or one empty entry resets the list; one that carries
    // entries replaces it, which is how kubectl hands fields from one manager to another.
    let discards =
        new["metadata"]["managedFields"].as_array().is_some_and(|list| match list.as_slice() {
            [] => true,
            [Value::Object(one)] => one.is_empty(),
            _ => false,
        });
    let sent = if writer.subresource == Subresource::None { read(new) } else { Vec::new() };
    let mut managers = match old {
        Some(_) if discards => Vec::new(),
        Some(old) if sent.is_empty() => read(old),
        Some(_) | None => sent,
    };
    // Nobody is known to manage anything: it stays so until something is applied.
    if old.is_some() && managers.is_empty() {
        return write(new, managers);
    }
    let zero_value;
    let before = match old {
        Some(old) => old,
        None => {
            zero_value = zero(resource);
            &zero_value
        }
    };
    let (changed, removed) = changes(&typed::compare(schema, before, new), reset);
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

/// Records that a new scale was written: the path of its replicas is the writer's alone. Such an
/// entry has no time of its own.
pub(crate) fn record_scale(new: &mut Value, path: &[&str], writer: &Writer<'_>) {
    let steps: Vec<String> = path.iter().map(|field| format!("f:{field}")).collect();
    let mut replicas = FieldSet::default();
    replicas.insert(&steps);
    let mine = Manager { time: String::new(), ..writer.entry(false, replicas.clone()) };
    let mut managers = read(new);
    let owned = managers.iter().any(|manager| manager.is(&mine));
    for manager in managers.iter_mut().filter(|manager| !manager.is(&mine)) {
        manager.set = manager.set.difference(&replicas);
    }
    if !owned {
        managers.push(mine);
    }
    write(new, managers);
}

/// Applies a configuration: server-side apply.
pub(crate) fn apply(
    resource: &ResourceType,
    schema: &Value,
    live: &Value,
    config: &Value,
    force: bool,
    reset: Reset,
    writer: &Writer<'_>,
) -> Result<Value, Refusal> {
    let mut set = typed::field_set(schema, config);
    strip(&mut set);
    reset.filter(&mut set);
    let mut merged = live.clone();
    typed::merge(schema, &mut merged, config);
    let mut managers = read(live);
    if managers.is_empty() && !object::uid(live).is_empty() {
        let (present, _) = changes(&typed::compare(schema, &zero(resource), live), reset);
        let before = Writer { name: "before-first-apply", ..*writer };
        managers.push(before.entry(false, present));
    }
    let mine = writer.entry(true, set);
    let last = managers.iter().position(|manager| manager.is(&mine)).map(|at| managers.remove(at));
    if let Some(last) = &last {
        let kept = managers.iter().fold(mine.set.clone(), |all, one| all.union(&one.set));
        let gone = last.set.with_parents().difference(&kept.with_parents());
        typed::remove(schema, &mut merged, &gone);
    }
    let (changed, removed) = changes(&typed::compare(schema, live, &merged), reset);
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
    for manager in &mut managers {
        manager.set = manager.set.difference(&removed);
    }
    // What is applied is there already: the entry keeps its time, and a new one has none.
    let mut mine = mine;
    if merged == *live {
        mine.time = last.map(|last| last.time).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(name: &str, apply: bool, time: &str) -> Manager {
        Manager {
            name: name.to_owned(),
            apply,
            api_version: "v1".to_owned(),
            subresource: String::new(),
            time: time.to_owned(),
            set: FieldSet::parse(&json!({"f:data": {}})),
        }
    }

    #[test]
    fn entries_stand_by_operation_then_time_then_name() {
        let mut object = json!({});
        let (early, late) = ("2025-01-01T00:00:00Z", "2025-01-01T00:00:01Z");
        write(
            &mut object,
            vec![
                manager("a", false, late),
                manager("d", false, ""),
                manager("c", true, late),
                manager("b", false, early),
                manager("e", true, early),
            ],
        );
        let names: Vec<&str> = object["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["manager"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["e", "c", "d", "b", "a"]);
        assert!(object["metadata"]["managedFields"][2].get("time").is_none());
    }
}
