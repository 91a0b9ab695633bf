//! What Kubernetes' controllers do after a deletion: owned objects, namespaces, definitions.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{DeleteOptions, Moment, ObjectKey, Store, Subresource, Target};
use crate::{ResourceId, object};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Store {
    /// One step of the garbage collector; `true` if it changed something, and should be asked
    /// again.
    pub fn collect(&mut self, moment: &mut Moment<'_>) -> bool {
        let before = self.revision;
        self.collect_orphans(moment);
        self.finish_owners();
        self.finish_claims();
        self.finish_volumes();
        self.finish_namespaces(moment);
        self.finish_definitions(moment);
        self.revision != before
    }

    /// Uids of all objects, with whether they wait for what they own.
    fn owners(&self) -> BTreeMap<String, bool> {
        self.objects
            .values()
            .map(|kept| {
                let waits = object::is_deleting(kept)
                    && object::finalizers(kept).iter().any(|one| one == FOREGROUND);
                (object::uid(kept).to_owned(), waits)
            })
            .collect()
    }

    /// Deletes the objects whose owners are gone, or wait for them to go.
    fn collect_orphans(&mut self, moment: &mut Moment<'_>) {
        let owners = self.owners();
        let doomed: Vec<(ObjectKey, bool)> = self
            .objects
            .iter()
            .filter(|(_, kept)| !object::is_deleting(kept))
            .filter_map(|(key, kept)| {
                let references = kept["metadata"]["ownerReferences"].as_array()?;
                let state = |reference: &Value| {
                    owners.get(reference["uid"].as_str().unwrap_or_default()).copied()
                };
                if references.is_empty() {
                    return None;
                }
                // An owner that is there and does not wait keeps the object.
                let held = references.iter().any(|one| state(one) == Some(false));
                let waited_for = references.iter().any(|one| state(one) == Some(true));
                (!held).then(|| (key.clone(), waited_for))
            })
            .collect();
        for (key, foreground) in doomed {
            let uid = self.objects.get(&key).map(|kept| object::uid(kept).to_owned());
            let propagation = if foreground {
                super::Propagation::Foreground
            } else {
                super::Propagation::Background
            };
            let options =
                DeleteOptions { uid, propagation: Some(propagation), ..DeleteOptions::default() };
            self.delete_key(&key, &options, moment);
        }
    }

    fn delete_key(&mut self, key: &ObjectKey, options: &DeleteOptions, moment: &mut Moment<'_>) {
        let Some(version) = self.version_of_kept(key) else { return };
        let id = ResourceId { group: key.group.clone(), version, plural: key.plural.clone() };
        let target = Target {
            resource: &id,
            namespace: &key.namespace,
            name: &key.name,
            subresource: Subresource::None,
        };
        // It may have gone meanwhile, or be another object by now; the next step looks again.
        let _ = self.delete(&target, options, moment);
    }

    fn version_of_kept(&self, key: &ObjectKey) -> Option<String> {
        self.registry
            .iter()
            .find(|resource| resource.group == key.group && resource.plural == key.plural)
            .and_then(|resource| resource.versions.iter().find(|version| version.served))
            .map(|version| version.name.clone())
    }

    /// Lets owners go whose owned objects have gone (foreground) or were let loose (orphan).
    fn finish_owners(&mut self) {
        let waiting: Vec<(ObjectKey, String, Vec<String>)> = self
            .objects
            .iter()
            .filter(|(_, kept)| object::is_deleting(kept))
            .map(|(key, kept)| {
                (key.clone(), object::uid(kept).to_owned(), object::finalizers(kept))
            })
            .collect();
        for (key, uid, finalizers) in waiting {
            if finalizers.iter().any(|one| one == ORPHAN) {
                self.let_loose(&uid);
                self.drop_finalizer(&key, ORPHAN);
            } else if finalizers.iter().any(|one| one == FOREGROUND) && !self.blocks(&uid) {
                self.drop_finalizer(&key, FOREGROUND);
            }
        }
    }

    /// Whether an object remains that wants its owner to wait.
    fn blocks(&self, owner: &str) -> bool {
        self.objects.values().any(|kept| {
            kept["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|reference| {
                reference["uid"] == owner && reference["blockOwnerDeletion"] == true
            })
        })
    }

    fn let_loose(&mut self, owner: &str) {
        let owned: Vec<(ObjectKey, Value)> = self
            .objects
            .iter()
            .filter_map(|(key, kept)| {
                let references = kept["metadata"]["ownerReferences"].as_array()?;
                let rest: Vec<Value> =
                    references.iter().filter(|one| one["uid"] != owner).cloned().collect();
                if rest.len() == references.len() {
                    return None;
                }
                let mut loose = (**kept).clone();
                let metadata = object::metadata(&mut loose);
                if rest.is_empty() {
                    object::remove(metadata, "ownerReferences");
                } else {
                    metadata.insert("ownerReferences".into(), rest.into());
                }
                Some((key.clone(), loose))
            })
            .collect();
        for (key, loose) in owned {
            self.commit(key, Some(loose));
        }
    }

    fn drop_finalizer(&mut self, key: &ObjectKey, finalizer: &str) {
        let Some(kept) = self.objects.get(key) else { return };
        let mut changed = (**kept).clone();
        let mut finalizers = object::finalizers(&changed);
        finalizers.retain(|one| one != finalizer);
        let last = finalizers.is_empty();
        let metadata = object::metadata(&mut changed);
        if last {
            object::remove(metadata, "finalizers");
        } else {
            metadata.insert("finalizers".into(), finalizers.into());
        }
        let grace = changed["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        let gone = last && grace == 0 && object::is_deleting(&changed);
        self.commit(key.clone(), (!gone).then_some(changed));
    }

    /// Lets claims go that no pod uses any more.
    fn finish_claims(&mut self) {
        let used: Vec<(&str, &str)> = self
            .kept("", "pods", None)
            .filter(|(_, pod)| {
                !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
            })
            .flat_map(|(key, pod)| {
                let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
                volumes.filter_map(|volume| {
                    let claim = volume["persistentVolumeClaim"]["claimName"].as_str()?;
                    Some((key.namespace.as_str(), claim))
                })
            })
            .collect();
        let free: Vec<ObjectKey> = self
            .kept("", "persistentvolumeclaims", None)
            .filter(|(key, claim)| {
                object::is_deleting(claim)
                    && object::finalizers(claim).iter().any(|one| one == CLAIM)
                    && !used.contains(&(key.namespace.as_str(), key.name.as_str()))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in free {
            self.drop_finalizer(&key, CLAIM);
        }
    }

    /// Lets volumes go whose claim is not there any more.
    fn finish_volumes(&mut self) {
        let claims: Vec<&str> = self
            .kept("", "persistentvolumeclaims", None)
            .map(|(_, claim)| object::uid(claim))
            .collect();
        let free: Vec<ObjectKey> = self
            .kept("", "persistentvolumes", None)
            .filter(|(_, volume)| {
                let claim = volume["spec"]["claimRef"]["uid"].as_str();
                object::is_deleting(volume)
                    && object::finalizers(volume).iter().any(|one| one == VOLUME)
                    && !claim.is_some_and(|uid| claims.contains(&uid))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in free {
            self.drop_finalizer(&key, VOLUME);
        }
    }

    /// Empties namespaces that are being deleted, then removes them.
    fn finish_namespaces(&mut self, moment: &mut Moment<'_>) {
        let going: Vec<String> = self
            .kept("", "namespaces", None)
            .filter(|(_, kept)| object::is_deleting(kept))
            .map(|(key, _)| key.name.clone())
            .collect();
        for namespace in going {
            let inside: Vec<(ObjectKey, bool)> = self
                .objects
                .iter()
                .filter(|(key, _)| key.namespace == namespace)
                .map(|(key, kept)| (key.clone(), object::is_deleting(kept)))
                .collect();
            if inside.is_empty() {
                let key = ObjectKey {
                    group: String::new(),
                    plural: "namespaces".into(),
                    namespace: String::new(),
                    name: namespace,
                };
                let free =
                    self.objects.get(&key).is_some_and(|kept| object::finalizers(kept).is_empty());
                if free {
                    self.commit(key, None);
                }
            }
            for (key, _) in inside.into_iter().filter(|(_, deleting)| !deleting) {
                self.delete_key(&key, &DeleteOptions::default(), moment);
            }
        }
    }

    /// Removes the objects of definitions that are being deleted, then the definitions.
    fn finish_definitions(&mut self, moment: &mut Moment<'_>) {
        let going: Vec<(ObjectKey, String, String)> = self
            .kept("apiextensions.k8s.io", "customresourcedefinitions", None)
            .filter(|(_, kept)| {
                object::is_deleting(kept)
                    && object::finalizers(kept).iter().any(|one| one == CLEANUP)
            })
            .map(|(key, kept)| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (key.clone(), text(&kept["spec"]["group"]), text(&kept["spec"]["names"]["plural"]))
            })
            .collect();
        for (definition, group, plural) in going {
            let instances: Vec<(ObjectKey, bool)> = self
                .kept(&group, &plural, None)
                .map(|(key, kept)| (key.clone(), object::is_deleting(kept)))
                .collect();
            if instances.is_empty() {
                self.drop_finalizer(&definition, CLEANUP);
            }
            for (key, _) in instances.into_iter().filter(|(_, deleting)| !deleting) {
                self.delete_key(&key, &DeleteOptions::default(), moment);
            }
        }
    }
}
