use serde_json::{Value, json};

use super::*;
use crate::{Propagation, patch::Patch};

/// A store with the namespace `n`, a clock that stands still and numbers that only count.
struct World {
    store: Store,
    next: u64,
}

const WIDGETS: (&str, &str, &str) = ("w.test", "v1", "widgets");
const MAPS: (&str, &str, &str) = ("", "v1", "configmaps");

impl World {
    fn new() -> Self {
        let mut world = Self { store: Store::new(Options::default()), next: 0 };
        world.create(("", "v1", "namespaces"), "", json!({"metadata": {"name": "n"}})).unwrap();
        world
    }

    fn with_widgets() -> Self {
        let mut world = Self::new();
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object",
                "x-kubernetes-validations": [
                    {"rule": "has(self.color) == has(oldSelf.color) && (!has(self.color) || self.color == oldSelf.color)",
                        "message": "color is immutable"}],
                "properties": {
                    "replicas": {"type": "integer", "default": 1, "maximum": 9},
                    "color": {"type": "string"},
                    "parts": {"type": "array", "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {
                            "name": {"type": "string"}, "count": {"type": "integer"}}}}}},
            "status": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "phase": {"type": "string"}}}}});
        let definition = json!({"metadata": {"name": "widgets.w.test"}, "spec": {
            "group": "w.test", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "schema": {"openAPIV3Schema": schema}}]}});
        let kind = ("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        world.create(kind, "", definition).unwrap();
        world
    }

    fn act<T>(
        &mut self,
        (group, version, plural): (&str, &str, &str),
        (namespace, name, subresource): (&str, &str, Subresource),
        act: impl FnOnce(&mut Store, &Target<'_>, &mut Moment<'_>) -> T,
    ) -> T {
        let id = ResourceId::new(group, version, plural);
        let target = Target { resource: &id, namespace, name, subresource };
        let next = &mut self.next;
        let mut random = || {
            *next += 1;
            *next
        };
        let now = "2025-01-01T00:00:00Z".parse().unwrap();
        act(&mut self.store, &target, &mut Moment { now, random: &mut random })
    }

    fn create(
        &mut self,
        kind: (&str, &str, &str),
        namespace: &str,
        object: Value,
    ) -> Result<Value, Refusal> {
        let mut object = object;
        let resource = self.store.registry.find(&ResourceId::new(kind.0, kind.1, kind.2))?;
        object["apiVersion"] = resource.api_version(kind.1).into();
        object["kind"] = resource.kind.as_str().into();
        self.act(kind, (namespace, "", Subresource::None), |store, target, moment| {
            store.create(target, object, &options("creator"), moment)
        })
        .map(|written| written.object)
    }

    fn merge(
        &mut self,
        kind: (&str, &str, &str),
        name: &str,
        patch: Value,
    ) -> Result<Value, Refusal> {
        self.act(kind, ("n", name, Subresource::None), |store, target, moment| {
            store.patch(target, &Patch::Merge(patch), &options("patcher"), moment)
        })
        .map(|written| written.object)
    }

    fn apply(
        &mut self,
        manager: &str,
        name: &str,
        spec: &Value,
        force: bool,
    ) -> Result<Value, Refusal> {
        let config = json!({"apiVersion": "w.test/v1", "kind": "Widget",
            "metadata": {"name": name}, "spec": spec});
        let options = WriteOptions { force, ..options(manager) };
        self.act(WIDGETS, ("n", name, Subresource::None), |store, target, moment| {
            store.apply(target, config, &options, moment)
        })
        .map(|written| written.object)
    }

    fn get(&mut self, kind: (&str, &str, &str), name: &str) -> Result<Value, Refusal> {
        self.act(kind, ("n", name, Subresource::None), |store, target, _| store.get(target))
    }

    fn delete(&mut self, kind: (&str, &str, &str), name: &str, propagation: Option<Propagation>) {
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        self.act(kind, ("n", name, Subresource::None), |store, target, moment| {
            store.delete(target, &options, moment)
        })
        .unwrap();
    }

    fn collect(&mut self) {
        while self.act(MAPS, ("", "", Subresource::None), |store, _, moment| store.collect(moment))
        {
        }
    }
}

fn options(manager: &str) -> WriteOptions {
    WriteOptions { manager: manager.into(), ..WriteOptions::default() }
}

fn widget(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

#[test]
fn a_definition_gives_defaults_prunes_and_refuses() {
    let mut world = World::with_widgets();
    let made = world.create(WIDGETS, "n", widget("a", &json!({"color": "red", "foo": 1}))).unwrap();
    assert_eq!(made["spec"], json!({"color": "red", "replicas": 1}));
    assert_eq!(made["metadata"]["generation"], 1);
    let refused = world.create(WIDGETS, "n", widget("b", &json!({"replicas": 10}))).unwrap_err();
    let expected = "Widget.w.test \"b\" is invalid: spec.replicas: Invalid value: 10: spec.replicas in body should be less than or equal to 9";
    assert_eq!(refused.to_string(), expected);
    // Only where a value is of another type are the rules not run, and the answer says so.
    let refused = world.create(WIDGETS, "n", widget("b", &json!({"replicas": "x"}))).unwrap_err();
    assert!(refused.to_string().contains("some validation rules were not checked"), "{refused}");
    let refused = world.merge(WIDGETS, "a", json!({"spec": {"color": "blue"}})).unwrap_err();
    assert!(refused.to_string().contains("spec: Invalid value: \"object\": color is immutable"));
}

#[test]
fn only_a_change_of_the_spec_is_a_generation() {
    let mut world = World::with_widgets();
    world.create(WIDGETS, "n", widget("a", &json!({}))).unwrap();
    let labelled = world.merge(WIDGETS, "a", json!({"metadata": {"labels": {"x": "y"}}})).unwrap();
    assert_eq!(labelled["metadata"]["generation"], 1);
    let scaled = world.merge(WIDGETS, "a", json!({"spec": {"replicas": 2}})).unwrap();
    assert_eq!(scaled["metadata"]["generation"], 2);
    let status = json!({"spec": {"replicas": 5}, "status": {"phase": "Up"}});
    let written = world
        .act(WIDGETS, ("n", "a", Subresource::Status), |store, target, moment| {
            store.patch(target, &Patch::Merge(status), &options("agent"), moment)
        })
        .unwrap();
    assert_eq!(written.object["spec"]["replicas"], 2);
    assert_eq!(written.object["status"]["phase"], "Up");
    assert_eq!(written.object["metadata"]["generation"], 2);
    let ignored = world.merge(WIDGETS, "a", json!({"status": {"phase": "Down"}})).unwrap();
    assert_eq!(ignored["status"]["phase"], "Up");
}

#[test]
fn a_write_that_changes_nothing_makes_no_version() {
    let mut world = World::with_widgets();
    world.create(WIDGETS, "n", widget("a", &json!({"color": "red"}))).unwrap();
    let (before, revision) = (world.get(WIDGETS, "a").unwrap(), world.store.revision());
    let after = world.merge(WIDGETS, "a", json!({"spec": {"color": "red"}})).unwrap();
    assert_eq!(after, before);
    assert_eq!(world.store.revision(), revision);
}

#[test]
fn an_applier_owns_its_fields_until_another_forces_them() {
    let mut world = World::with_widgets();
    let both = json!({"color": "red", "parts": [{"name": "x", "count": 1}, {"name": "y"}]});
    let made = world.apply("one", "a", &both, false).unwrap();
    assert_eq!(made["spec"]["replicas"], 1, "defaults are filled in");
    let fields = &made["metadata"]["managedFields"][0];
    assert_eq!(fields["operation"], "Apply");
    assert_eq!(
        fields["fieldsV1"]["f:spec"]["f:parts"]["k:{\"name\":\"y\"}"],
        json!({".": {}, "f:name": {}})
    );
    let other = json!({"parts": [{"name": "x", "count": 2}]});
    let refused = world.apply("two", "a", &other, false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.parts[name=\"x\"].count"
    );
    world.apply("two", "a", &other, true).unwrap();
    let shrunk = world.apply("one", "a", &json!({"color": "red"}), false).unwrap();
    assert_eq!(
        shrunk["spec"]["parts"],
        json!([{"name": "x", "count": 2}]),
        "what one manager leaves goes, what the other has stays"
    );
    let before = world.store.revision();
    world.apply("one", "a", &json!({"color": "red"}), false).unwrap();
    assert_eq!(world.store.revision(), before, "the same again is no write");
}

#[test]
fn a_finalizer_holds_a_deleted_object() {
    let mut world = World::new();
    let held = json!({"metadata": {"name": "a", "finalizers": ["t.io/hold"]}});
    world.create(MAPS, "n", held).unwrap();
    world.delete(MAPS, "a", None);
    let marked = world.get(MAPS, "a").unwrap();
    assert!(object::is_deleting(&marked));
    world.merge(MAPS, "a", json!({"metadata": {"finalizers": null}})).unwrap();
    assert!(matches!(world.get(MAPS, "a"), Err(Refusal::NotFound(_))));
}

fn owned(name: &str, owner: &Value, blocking: bool) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap",
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": blocking}]}})
}

#[test]
fn what_an_owner_owns_goes_with_it() {
    let mut world = World::new();
    for propagation in [None, Some(Propagation::Background), Some(Propagation::Foreground)] {
        let owner = world.create(MAPS, "n", json!({"metadata": {"name": "owner"}})).unwrap();
        let child = world.create(MAPS, "n", owned("child", &owner, true)).unwrap();
        world.create(MAPS, "n", owned("grandchild", &child, true)).unwrap();
        world.delete(MAPS, "owner", propagation);
        let kept = world.get(MAPS, "owner").is_ok();
        assert_eq!(kept, propagation == Some(Propagation::Foreground));
        world.collect();
        for name in ["owner", "child", "grandchild"] {
            assert!(world.get(MAPS, name).is_err(), "{name} is left with {propagation:?}");
        }
    }
    let owner = world.create(MAPS, "n", json!({"metadata": {"name": "owner"}})).unwrap();
    world.create(MAPS, "n", owned("child", &owner, true)).unwrap();
    world.delete(MAPS, "owner", Some(Propagation::Orphan));
    world.collect();
    assert!(world.get(MAPS, "owner").is_err());
    assert!(world.get(MAPS, "child").unwrap()["metadata"].get("ownerReferences").is_none());
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    let mut world = World::with_widgets();
    world.create(WIDGETS, "n", widget("a", &json!({}))).unwrap();
    world.create(MAPS, "n", json!({"metadata": {"name": "b"}})).unwrap();
    world
        .act(("", "v1", "namespaces"), ("", "n", Subresource::None), |store, target, moment| {
            store.delete(target, &DeleteOptions::default(), moment)
        })
        .unwrap();
    let refused = world.create(MAPS, "n", json!({"metadata": {"name": "late"}})).unwrap_err();
    assert_eq!(refused.code(), 403);
    world.collect();
    assert!(world.store.peek("", "namespaces", "", "n").is_none());
    assert!(world.store.objects().all(|(key, _)| key.namespace != "n"));
}

#[test]
fn a_watch_tells_what_left_its_selection_and_expires() {
    let mut world = World::new();
    let id = ResourceId::new("", "v1", "configmaps");
    let start = WatchStart::After(world.store.revision());
    let (mut cursor, first) = world.store.watch(&id, Some("n"), "app=a", "", &start).unwrap();
    assert!(first.is_empty());
    let labelled = json!({"metadata": {"name": "a", "labels": {"app": "a"}}});
    world.create(MAPS, "n", labelled).unwrap();
    world.create(MAPS, "n", json!({"metadata": {"name": "b"}})).unwrap();
    world.merge(MAPS, "a", json!({"data": {"k": "1"}})).unwrap();
    world.merge(MAPS, "a", json!({"metadata": {"labels": null}})).unwrap();
    let events = world.store.poll(&mut cursor, u64::MAX).unwrap();
    let kinds: Vec<&str> = events.iter().map(WatchEvent::kind).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
    assert!(world.store.poll(&mut cursor, u64::MAX).unwrap().is_empty());
    world.store.compact();
    let late = world.store.watch(&id, Some("n"), "", "", &start).unwrap_err();
    assert_eq!((late.code(), late.reason()), (410, "Expired"));
}

#[test]
fn pages_are_of_one_moment() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.create(MAPS, "n", json!({"metadata": {"name": name}})).unwrap();
    }
    let id = ResourceId::new("", "v1", "configmaps");
    let first = ListOptions { limit: 2, ..ListOptions::default() };
    let page = world.store.list(&id, Some("n"), &first).unwrap();
    assert_eq!((page.items.len(), page.remaining), (2, Some(1)));
    world.delete(MAPS, "c", None);
    world.create(MAPS, "n", json!({"metadata": {"name": "d"}})).unwrap();
    let next = ListOptions { continuation: page.continuation, ..first };
    let rest = world.store.list(&id, Some("n"), &next).unwrap();
    let names: Vec<&str> = rest.items.iter().map(object::name).collect();
    assert_eq!(names, ["c"]);
    assert_eq!(rest.revision, page.revision);
}

#[test]
fn a_running_pod_has_its_grace() {
    let mut world = World::new();
    let pods = ("", "v1", "pods");
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.create(pods, "n", pod).unwrap();
    let binding = json!({"target": {"name": "here"}});
    world
        .act(pods, ("n", "p", Subresource::None), |store, target, _| store.bind(target, &binding))
        .unwrap();
    world.delete(pods, "p", None);
    let marked = world.get(pods, "p").unwrap();
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2025-01-01T00:00:30Z");
    let mut delete = |grace| {
        let options = DeleteOptions { grace: Some(grace), ..DeleteOptions::default() };
        world
            .act(pods, ("n", "p", Subresource::None), |store, target, moment| {
                store.delete(target, &options, moment)
            })
            .unwrap();
        world.get(pods, "p")
    };
    assert_eq!(delete(5).unwrap()["metadata"]["deletionTimestamp"], "2025-01-01T00:00:05Z");
    assert!(delete(0).is_err());
}

#[test]
fn services_get_addresses_of_their_own() {
    let mut world = World::new();
    let services = ("", "v1", "services");
    let mut addresses = std::collections::BTreeSet::new();
    for name in ["a", "b", "c"] {
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 1}]}});
        let made = world.create(services, "n", service).unwrap();
        addresses.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned());
    }
    assert_eq!(addresses.len(), 3);
    let stolen = json!({"metadata": {"name": "d"},
        "spec": {"ports": [{"port": 1}], "clusterIP": addresses.first()}});
    assert_eq!(world.create(services, "n", stolen).unwrap_err().code(), 422);
}

#[test]
fn an_event_of_the_new_group_is_one_of_the_old() {
    let mut world = World::new();
    let event = json!({"metadata": {"name": "e"}, "note": "hello", "eventTime": null,
        "regarding": {"kind": "Pod", "name": "p", "namespace": "n"}});
    world.create(("events.k8s.io", "v1", "events"), "n", event).unwrap();
    let old = world.get(("", "v1", "events"), "e").unwrap();
    assert_eq!((&old["message"], &old["involvedObject"]["name"]), (&json!("hello"), &json!("p")));
    let new = world.get(("events.k8s.io", "v1", "events"), "e").unwrap();
    assert_eq!((&new["note"], &new["apiVersion"]), (&json!("hello"), &json!("events.k8s.io/v1")));
}
