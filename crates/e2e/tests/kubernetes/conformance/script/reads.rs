//! The steps that read many objects.

use serde_json::{Value, json};

use super::{Step, VERSION, Verb, config_map, get, step};

/// Lists, pages, tables and what is selected.
pub fn lists() -> Vec<Step> {
    use Verb::{Metadata, Table};
    vec![
        get("all widgets", "@").keep("list", VERSION),
        get("by label", "@?labelSelector=app%3Dw"),
        get("by a set of labels", "~/configmaps?labelSelector=app+in+(a,b),tier"),
        get("by an absent label", "~/configmaps?labelSelector=!app"),
        get("by a selector that is none", "~/configmaps?labelSelector=a%3D%3D%3Db").code(),
        get("by name", "@?fieldSelector=metadata.name%3Dw"),
        get("by a field that is not selectable", "@?fieldSelector=spec.color%3Dred"),
        get("config maps by such a field", "~/configmaps?fieldSelector=spec.x%3D1"),
        get("pods by such a field", "~/pods?fieldSelector=spec.x%3D1"),
        get("as of a version that is no number", "~/configmaps?resourceVersion=abc"),
        get("pods by phase", "~/pods?fieldSelector=status.phase%3DRunning"),
        get("the first page", "@?limit=2").keep("next", "/metadata/continue"),
        get("the next page", "@?limit=2&continue=${next}"),
        get("a continue token that is none", "@?limit=2&continue=nonsense").code(),
        get("as of an exact version", "@?resourceVersion=${list}&resourceVersionMatch=Exact"),
        step("as a table", Table, "@", Value::Null),
        step("one as a table", Table, "@/w", Value::Null),
        step("config maps as a table", Table, "~/configmaps", Value::Null).cells(),
        step("pods as a table", Table, "~/pods", Value::Null).cells(),
        step("services as a table", Table, "~/services", Value::Null).cells(),
        step("claims as a table", Table, "~/persistentvolumeclaims", Value::Null).cells(),
        step("secrets as a table", Table, "~/secrets", Value::Null).cells(),
        // A kube-apiserver repairs addresses of Services now and then, and tells of it in events.
        step(
            "events as a table",
            Table,
            "~/events?fieldSelector=involvedObject.name=p",
            Value::Null,
        )
        .cells(),
        step(
            "leases as a table",
            Table,
            "/apis/coordination.k8s.io/v1/namespaces/conf/leases",
            Value::Null,
        )
        .cells(),
        step("metadata alone", Metadata, "@/w", Value::Null),
    ]
}

/// Watches, after a few changes to tell of.
pub fn watches() -> Vec<Step> {
    use Verb::{Delete, Get, Merge, Post, Watch};
    let watch = |name, query: &str| {
        step(name, Watch, &format!("~/configmaps?watch=true&timeoutSeconds=3&{query}"), Value::Null)
    };
    vec![
        step("where to begin", Get, "~/configmaps?limit=1", Value::Null).keep("start", VERSION),
        step("a change", Post, "~/configmaps", config_map("watched", json!({"k": "1"}))),
        step(
            "another",
            Merge,
            "~/configmaps/watched",
            json!({"metadata": {"labels": {"app": "watched"}}}),
        ),
        step("a last one", Delete, "~/configmaps/watched", Value::Null),
        watch("what happened since", "resourceVersion=${start}"),
        watch("to those of a label", "resourceVersion=${start}&labelSelector=app%3Dwatched"),
        watch("to one of a name", "resourceVersion=${start}&fieldSelector=metadata.name%3Dwatched"),
        watch("from the beginning", "resourceVersion=0&labelSelector=app%3Da"),
        watch(
            "with all there is and a bookmark",
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=app%3Da",
        ),
        watch("with initial events but no match", "sendInitialEvents=true").code(),
        watch("from a version that is no number", "resourceVersion=abc").code(),
    ]
}
