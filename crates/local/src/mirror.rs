//! A copy of the objects that a watch delivers.

use std::collections::BTreeMap;
use std::fmt::Debug;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// Objects by `namespace/name`. Until the first list is complete nothing may be concluded from
/// what is missing.
#[derive(Debug)]
pub struct Mirror<K> {
    objects: BTreeMap<String, K>,
    incoming: Option<BTreeMap<String, K>>,
    complete: bool,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), incoming: None, complete: false }
    }
}

impl<K: ResourceExt> Mirror<K> {
    /// Takes one event.
    pub fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.incoming = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                if let Some(incoming) = &mut self.incoming {
                    incoming.insert(key(&object), object);
                }
            }
            Event::InitDone => {
                if let Some(incoming) = self.incoming.take() {
                    self.objects = incoming;
                    self.complete = true;
                }
            }
            Event::Apply(object) => drop(self.objects.insert(key(&object), object)),
            Event::Delete(object) => drop(self.objects.remove(&key(&object))),
        }
    }

    /// All objects, if the list was complete once.
    #[must_use]
    pub fn objects(&self) -> Option<&BTreeMap<String, K>> {
        self.complete.then_some(&self.objects)
    }
}

/// `namespace/name`, or the name of an object without a namespace.
pub fn key<K: ResourceExt>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    fn service(name: &str) -> Service {
        let mut service = Service::default();
        service.metadata.name = Some(name.to_owned());
        service.metadata.namespace = Some("default".to_owned());
        service
    }

    #[test]
    fn nothing_is_concluded_before_the_first_list_and_a_new_list_replaces_the_old_at_once() {
        let mut mirror = Mirror::default();
        mirror.take(Event::Init);
        mirror.take(Event::InitApply(service("a")));
        assert!(mirror.objects().is_none());
        mirror.take(Event::InitDone);
        mirror.take(Event::Apply(service("b")));
        let names = |mirror: &Mirror<Service>| {
            mirror.objects().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&mirror), ["default/a", "default/b"]);
        mirror.take(Event::Init);
        mirror.take(Event::InitApply(service("b")));
        assert_eq!(names(&mirror), ["default/a", "default/b"]);
        mirror.take(Event::InitDone);
        assert_eq!(names(&mirror), ["default/b"]);
        mirror.take(Event::Delete(service("b")));
        assert!(mirror.objects().unwrap().is_empty());
    }
}
