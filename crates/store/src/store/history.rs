//! Lists, pages of lists and watches: the state at a revision, and what happened since.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{Change, ObjectKey, Selectors, Store, key, present};
use crate::{Refusal, ResourceId, ResourceType, object};

/// Options of a list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Label selector as text.
    pub labels: String,
    /// Field selector as text.
    pub fields: String,
    /// Most items of one page; 0 for all.
    pub limit: usize,
    /// Where the page before ended.
    pub continuation: Option<String>,
    /// A resourceVersion that the answer must not be older than, or be exactly.
    pub resource_version: Option<String>,
    /// Whether `resource_version` is meant exactly.
    pub exact: bool,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The objects.
    pub items: Vec<Value>,
    /// The revision that they are of.
    pub revision: u64,
    /// Where the next page begins.
    pub continuation: Option<String>,
    /// How many are left, where no selector makes that unknown.
    pub remaining: Option<usize>,
}

/// How a watch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With all present objects, then what happens.
    Now,
    /// With what happened after a resourceVersion.
    After(u64),
    /// With all present objects and a bookmark that says where they end.
    InitialEvents,
}

/// A running watch.
#[derive(Clone, Debug)]
pub struct WatchCursor {
    resource: Arc<ResourceType>,
    version: String,
    namespace: Option<String>,
    selectors: Selectors,
    next: u64,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// The object came, or began to match.
    Added(Value),
    /// It changed.
    Modified(Value),
    /// It went, or no longer matches.
    Deleted(Value),
    /// Nothing up to this object's resourceVersion is left to tell.
    Bookmark(Value),
}

impl WatchEvent {
    /// The `type` of the event on the wire.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Added(_) => "ADDED",
            Self::Modified(_) => "MODIFIED",
            Self::Deleted(_) => "DELETED",
            Self::Bookmark(_) => "BOOKMARK",
        }
    }

    /// The object of the event.
    #[must_use]
    pub fn object(&self) -> &Value {
        match self {
            Self::Added(object)
            | Self::Modified(object)
            | Self::Deleted(object)
            | Self::Bookmark(object) => object,
        }
    }
}

const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.";

impl Store {
    /// Lists a resource, in a namespace or in all.
    ///
    /// # Errors
    /// Refuses selectors and continue tokens that make no sense, and revisions not known any more.
    pub fn list(
        &self,
        id: &ResourceId,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, Refusal> {
        let resource = self.registry.find(id)?;
        let selectors = Selectors::parse(&resource, &id.version, &options.labels, &options.fields)?;
        let (revision, after) = self.start_of_page(options)?;
        let state = self.state_at(&resource, namespace, revision)?;
        let mut items = Vec::new();
        let mut last = None;
        let mut remaining = 0_usize;
        for (key, kept) in state {
            if after
                .as_ref()
                .is_some_and(|after| (&key.namespace, &key.name) <= (&after.0, &after.1))
            {
                continue;
            }
            if options.limit > 0 && items.len() == options.limit {
                remaining += 1;
                continue;
            }
            let shown = present(&resource, &id.version, &kept);
            if selectors.matches(&shown) {
                items.push(shown);
                last = Some((key.namespace, key.name));
            }
        }
        let continuation = (remaining > 0).then_some(last).flatten().map(|(namespace, name)| {
            json!({"v": "meta.k8s.io/v1", "rv": revision, "start": [namespace, name]}).to_string()
        });
        let remaining = (continuation.is_some() && selectors.is_empty()).then_some(remaining);
        Ok(Page { items, revision, continuation, remaining })
    }

    fn start_of_page(
        &self,
        options: &ListOptions,
    ) -> Result<(u64, Option<(String, String)>), Refusal> {
        if let Some(token) = &options.continuation {
            let bad = || Refusal::BadRequest("continue key is not valid: not a token".to_owned());
            let token: Value = serde_json::from_str(token).map_err(|_| bad())?;
            let revision = token["rv"].as_u64().ok_or_else(bad)?;
            let text = |index: usize| token["start"][index].as_str().map(str::to_owned);
            if revision < self.forgotten {
                return Err(Refusal::Expired(CONTINUE_TOO_OLD.to_owned()));
            }
            return Ok((revision, text(0).zip(text(1))));
        }
        let Some(text) = options.resource_version.as_deref().filter(|text| !text.is_empty()) else {
            return Ok((self.revision, None));
        };
        let wanted = parse_revision(text).map_err(|refusal| {
            Refusal::BadRequest(format!("invalid resource version: {refusal}"))
        })?;
        if wanted > self.revision {
            return Err(Refusal::TooLargeVersion { wanted, current: self.revision });
        }
        if options.exact {
            if wanted < self.forgotten {
                return Err(expired(wanted, self.forgotten));
            }
            return Ok((wanted, None));
        }
        Ok((self.revision, None))
    }

    /// The objects of a resource as they were at a revision: now, with the changes since undone.
    fn state_at(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<BTreeMap<ObjectKey, Arc<Value>>, Refusal> {
        if revision < self.forgotten {
            return Err(expired(revision, self.forgotten));
        }
        let (group, plural) = resource.storage();
        let mut state: BTreeMap<ObjectKey, Arc<Value>> = self
            .kept(&group, &plural, namespace)
            .map(|(key, kept)| (key.clone(), Arc::clone(kept)))
            .collect();
        for change in self.log.iter().rev().take_while(|change| change.revision > revision) {
            let concerned = change.key.group == group
                && change.key.plural == plural
                && namespace.is_none_or(|wanted| change.key.namespace == wanted);
            if !concerned {
                continue;
            }
            match &change.before {
                Some(before) => state.insert(change.key.clone(), Arc::clone(before)),
                None => state.remove(&change.key),
            };
        }
        Ok(state)
    }

    /// Begins a watch: the cursor to go on with, and the first events.
    ///
    /// # Errors
    /// [`Refusal::Gone`] where the resourceVersion is too old, and what [`Store::list`] refuses.
    pub fn watch(
        &self,
        id: &ResourceId,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
        start: &WatchStart,
    ) -> Result<(WatchCursor, Vec<WatchEvent>), Refusal> {
        let resource = self.registry.find(id)?;
        let selectors = Selectors::parse(&resource, &id.version, labels, fields)?;
        let mut cursor = WatchCursor {
            resource,
            version: id.version.clone(),
            namespace: namespace.map(str::to_owned),
            selectors,
            next: self.revision,
        };
        let mut events = Vec::new();
        match start {
            WatchStart::After(revision) => {
                if *revision < self.forgotten {
                    return Err(expired(*revision, self.forgotten));
                }
                if *revision > self.revision {
                    return Err(Refusal::TooLargeVersion {
                        wanted: *revision,
                        current: self.revision,
                    });
                }
                cursor.next = *revision;
            }
            WatchStart::Now | WatchStart::InitialEvents => {
                let (group, plural) = cursor.resource.storage();
                events = self
                    .kept(&group, &plural, namespace)
                    .map(|(_, kept)| present(&cursor.resource, &cursor.version, kept))
                    .filter(|shown| cursor.selectors.matches(shown))
                    .map(WatchEvent::Added)
                    .collect();
                if *start == WatchStart::InitialEvents {
                    events.push(self.bookmark(&cursor, true));
                }
            }
        }
        Ok((cursor, events))
    }

    /// What happened since the cursor was last asked, up to `limit_revision`: the newest change
    /// that is durable.
    ///
    /// # Errors
    /// [`Refusal::Gone`] where the cursor has fallen behind what is kept.
    pub fn poll(
        &self,
        cursor: &mut WatchCursor,
        limit_revision: u64,
    ) -> Result<Vec<WatchEvent>, Refusal> {
        if cursor.next < self.forgotten {
            return Err(expired(cursor.next, self.forgotten));
        }
        let from = self.log.partition_point(|change| change.revision <= cursor.next);
        let events = self
            .log
            .range(from..)
            .take_while(|change| change.revision <= limit_revision)
            .filter_map(|change| cursor.event(change))
            .collect();
        cursor.next = cursor.next.max(limit_revision.min(self.revision));
        Ok(events)
    }

    /// A bookmark at the cursor's place; `initial` says that the present objects end here.
    #[must_use]
    pub fn bookmark(&self, cursor: &WatchCursor, initial: bool) -> WatchEvent {
        let mut metadata = json!({"resourceVersion": cursor.next.to_string()});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        WatchEvent::Bookmark(json!({
            "kind": cursor.resource.kind,
            "apiVersion": cursor.resource.api_version(&cursor.version),
            "metadata": metadata,
        }))
    }
}

impl WatchCursor {
    /// The resource that is watched.
    #[must_use]
    pub fn resource(&self) -> &Arc<ResourceType> {
        &self.resource
    }

    fn event(&self, change: &Change) -> Option<WatchEvent> {
        let here = key(&self.resource, &change.key.namespace, &change.key.name);
        if here != change.key
            || self.namespace.as_ref().is_some_and(|wanted| *wanted != change.key.namespace)
        {
            return None;
        }
        let shown = |kept: &Arc<Value>| {
            let shown = present(&self.resource, &self.version, kept);
            self.selectors.matches(&shown).then_some(shown)
        };
        let before = change.before.as_ref().and_then(shown);
        let after = change.after.as_ref().and_then(shown);
        match (before, after) {
            (None, Some(after)) => Some(WatchEvent::Added(after)),
            (Some(_), Some(after)) => Some(WatchEvent::Modified(after)),
            (Some(before), None) => {
                // What left the selection is told as it was, at the revision at which it left.
                let mut gone = before;
                object::metadata(&mut gone)
                    .insert("resourceVersion".into(), change.revision.to_string().into());
                Some(WatchEvent::Deleted(gone))
            }
            (None, None) => None,
        }
    }
}

/// A resourceVersion from a request.
///
/// # Errors
/// Refuses what is not a number.
pub fn parse_revision(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| {
        Refusal::Plain(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

fn expired(wanted: u64, forgotten: u64) -> Refusal {
    Refusal::Expired(format!("too old resource version: {wanted} ({forgotten})"))
}
