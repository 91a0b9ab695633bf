//! What is asked about the server itself: health, version, discovery, one's own rights.

use axum::body::Body;
use http::{HeaderMap, Response, StatusCode, header};
use matriarch_store::{
    Refusal, discovery, openapi,
    rbac::{Attributes, authorize},
};
use serde_json::{Value, json};

use super::{
    ApiServer, Caller, answer, protobuf,
    resources::{Request, content_type, read_body},
};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a path that names no resource.
pub fn answer(
    server: &ApiServer,
    steps: &[String],
    headers: &HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let aggregated = accept.split(',').any(|kind| {
        kind.contains("as=APIGroupDiscoveryList")
            && kind.contains("v=v2")
            && !kind.contains("v=v2beta1")
    });
    let store = server.store();
    let registry = store.registry();
    let found = match steps.as_slice() {
        ["healthz" | "readyz" | "livez", ..] => {
            return Ok(answer::typed(StatusCode::OK, "text/plain; charset=utf-8", "ok"));
        }
        ["version"] => version(),
        ["api"] if aggregated => return Ok(typed(&discovery::aggregated(registry, true))),
        ["apis"] if aggregated => return Ok(typed(&discovery::aggregated(registry, false))),
        ["api"] => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }),
        ["apis"] => discovery::groups(registry),
        ["api", version] => discovery::resources(registry, "", version)?,
        ["openapi", "v3"] => openapi::index(registry, store.definitions_revision()),
        ["openapi", "v3", "api", version] => openapi::document(registry, "", version)?,
        ["openapi", "v3", "apis", group, version] => openapi::document(registry, group, version)?,
        ["apis", group] => discovery::group(registry, group)?,
        ["apis", group, version] => discovery::resources(registry, group, version)?,
        _ => return Err(Refusal::NoResource),
    };
    drop(store);
    Ok(answer::json(StatusCode::OK, &found))
}

fn typed(list: &Value) -> Response<Body> {
    answer::typed(StatusCode::OK, AGGREGATED, list.to_string())
}

/// The Kubernetes that the answers are those of; `store`'s conformance is checked against it.
fn version() -> Value {
    json!({
        "major": "1",
        "minor": "34",
        "gitVersion": "v1.34.4+matriarch",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

/// Answers the reviews that everyone may ask for; `None` for any other resource.
pub fn review(server: &ApiServer, request: &Request) -> Result<Option<Response<Body>>, Refusal> {
    let id = &request.place.resource;
    let answered = match (id.group.as_str(), id.plural.as_str()) {
        ("authorization.k8s.io", "selfsubjectaccessreviews") => {
            let mut review = read_review(request)?;
            let allowed = allowed(server, &request.caller, &review["spec"]);
            review["status"] = json!({"allowed": allowed});
            review
        }
        ("authentication.k8s.io", "selfsubjectreviews") => {
            let mut review = read_review(request)?;
            review["status"] = json!({"userInfo": {
                "username": request.caller.user(),
                "groups": request.caller.groups(),
            }});
            review
        }
        _ => return Ok(None),
    };
    Ok(Some(answer::json(StatusCode::CREATED, &answered)))
}

fn read_review(request: &Request) -> Result<Value, Refusal> {
    if content_type(&request.headers) == protobuf::CONTENT_TYPE {
        return protobuf::review(&request.body);
    }
    read_body(&request.body)
}

fn allowed(server: &ApiServer, caller: &Caller, spec: &Value) -> bool {
    if *caller == Caller::Admin {
        return true;
    }
    let asked = &spec["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default();
    let attributes = Attributes {
        verb: text("verb"),
        group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
    };
    asked.is_object()
        && authorize(&server.store(), &caller.user(), &caller.groups(), &attributes).is_ok()
}
