//! Requests for resources: reading the request, asking the store, answering.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use matriarch_store::{
    Cause, DeleteOptions, ListOptions, Moment, Refusal, ResourceId, Store, Subresource, Target,
    WriteOptions, Written, object,
    patch::Patch,
    rbac::{Attributes, authorize},
    status::Subject,
};
use serde_json::{Value, json};

use super::{
    ApiServer, Caller, answer,
    form::{Form, listed},
    plain,
    request::{Parameters, Place, Route},
    watching,
};

/// Most bytes of a request's body, as in kube-apiserver.
const LARGEST: usize = 3 << 20;

/// One request for a resource.
pub struct Request {
    pub place: Place,
    pub parameters: Parameters,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub caller: Caller,
}

impl ApiServer {
    /// Answers a request of a known caller.
    pub(super) async fn handle<B>(
        &self,
        request: http::Request<B>,
        caller: Caller,
    ) -> Response<Body>
    where
        B: axum::body::HttpBody<Data = Bytes> + Send,
        B::Error: Into<tower::BoxError>,
    {
        self.wait_while_paused().await;
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, LARGEST).collect().await else {
            return answer::refusal(&Refusal::BadRequest(
                "the body of the request could not be read or is larger than 3 MiB".into(),
            ));
        };
        match Box::pin(self.answer(parts, body.to_bytes(), caller)).await {
            Ok(response) => response,
            Err(refusal) => answer::refusal(&refusal),
        }
    }

    async fn answer(
        &self,
        parts: Parts,
        body: Bytes,
        caller: Caller,
    ) -> Result<Response<Body>, Refusal> {
        let parameters = Parameters::of(&parts.uri);
        match Route::parse(parts.uri.path()) {
            Route::Plain(steps) => plain::answer(self, &steps, &parts.headers),
            Route::Resource(place) => {
                let request =
                    Request { place: *place, parameters, headers: parts.headers, body, caller };
                if parts.method == Method::POST
                    && let Some(response) = plain::review(self, &request)?
                {
                    return Ok(response);
                }
                let verb = verb(&parts.method, &request)?;
                self.authorize(&request, verb)?;
                Box::pin(self.dispatch(verb, &request)).await
            }
        }
    }

    fn authorize(&self, request: &Request, verb: &'static str) -> Result<(), Refusal> {
        if request.caller == Caller::Admin {
            return Ok(());
        }
        let place = &request.place;
        let named = request.parameters.get("fieldSelector").and_then(exact_name);
        authorize(
            &self.store(),
            &request.caller.user(),
            &request.caller.groups(),
            &Attributes {
                verb,
                group: &place.resource.group,
                resource: &place.resource.plural,
                subresource: place.subresource.as_deref().unwrap_or_default(),
                namespace: place.namespace.as_deref().unwrap_or_default(),
                name: place.name.as_deref().or(named.as_deref()).unwrap_or_default(),
            },
        )
    }

    async fn dispatch(
        &self,
        verb: &'static str,
        request: &Request,
    ) -> Result<Response<Body>, Refusal> {
        match verb {
            "watch" => watching::answer(self, request).await,
            "list" => self.list(request).await,
            "get" => match request.place.subresource.as_deref() {
                Some("log") => self.pod_log(request).await,
                _ => self.get(request).await,
            },
            "deletecollection" => self.delete_collection(request).await,
            _ => {
                let (written, revision) =
                    self.write(|store, moment| change(store, moment, verb, request));
                let written = written?;
                self.settle(revision).await?;
                let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
                let object = self.formed(request, &written.object)?;
                let mut response = answer::json(code, &object);
                answer::warn(&mut response, &written.warnings);
                Ok(response)
            }
        }
    }

    async fn get(&self, request: &Request) -> Result<Response<Body>, Refusal> {
        let (found, revision) = {
            let store = self.store();
            (store.get(&target(&request.place)?), store.revision())
        };
        self.settle(revision).await?;
        Ok(answer::json(StatusCode::OK, &self.formed(request, &found?)?))
    }

    /// An object in the form that the client wants; a Status or Scale stays what it is.
    fn formed(&self, request: &Request, object: &Value) -> Result<Value, Refusal> {
        let id = &request.place.resource;
        let resource = self.store().registry().find(id)?;
        if object["kind"] != resource.kind.as_str() {
            return Ok(object.clone());
        }
        let form = Form::of(&request.headers, &request.parameters);
        Ok(form.one(&resource, &id.version, object, true, (self.inner.clock)()))
    }

    async fn list(&self, request: &Request) -> Result<Response<Body>, Refusal> {
        let place = &request.place;
        let options = list_options(&request.parameters);
        let (page, resource, revision) = {
            let store = self.store();
            let resource = store.registry().find(&place.resource)?;
            let page = store.list(&place.resource, place.namespace.as_deref(), &options)?;
            (page, resource, store.revision())
        };
        self.settle(revision).await?;
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        let token = page.continuation.as_deref().map(encode_continue).unwrap_or_default();
        let form = Form::of(&request.headers, &request.parameters);
        // Lists of custom resources have the field even where there is no next page.
        if !token.is_empty() || resource.builtin.is_none() && form == Form::Whole {
            metadata["continue"] = token.into();
        }
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let version = &place.resource.version;
        let list = form.list(&resource, version, page.items, &metadata, (self.inner.clock)());
        Ok(answer::json(StatusCode::OK, &list))
    }

    async fn delete_collection(&self, request: &Request) -> Result<Response<Body>, Refusal> {
        let options = delete_options(request)?;
        let list = list_options(&request.parameters);
        let place = &request.place;
        let (deleted, revision) = self.write(|store, moment| {
            let namespace = place.namespace.as_deref().unwrap_or_default();
            store.delete_collection(&place.resource, namespace, &list, &options, moment)
        });
        let deleted = deleted?;
        self.settle(revision).await?;
        let resource = self.store().registry().find(&place.resource)?;
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if resource.builtin.is_none() {
            metadata["continue"] = "".into();
        }
        Ok(answer::json(
            StatusCode::OK,
            &json!({
                "kind": resource.list_kind,
                "apiVersion": resource.api_version(&place.resource.version),
                "metadata": metadata,
                "items": listed(&resource, deleted),
            }),
        ))
    }
}

fn exact_name(selector: &str) -> Option<String> {
    matriarch_store::selector::FieldSelector::parse(selector, &[])
        .ok()?
        .exact_name()
        .map(str::to_owned)
}

fn verb(method: &Method, request: &Request) -> Result<&'static str, Refusal> {
    let named = request.place.name.is_some();
    match *method {
        Method::GET | Method::HEAD if request.parameters.flag("watch") && !named => Ok("watch"),
        Method::GET | Method::HEAD if named => Ok("get"),
        Method::GET | Method::HEAD => Ok("list"),
        Method::POST if !named || request.place.subresource.is_some() => Ok("create"),
        Method::PUT if named => Ok("update"),
        Method::PATCH if named => Ok("patch"),
        Method::DELETE if named => Ok("delete"),
        Method::DELETE => Ok("deletecollection"),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

/// What the store is asked about.
fn target(place: &Place) -> Result<Target<'_>, Refusal> {
    let subresource = match place.subresource.as_deref() {
        None => Subresource::None,
        Some("status") => Subresource::Status,
        Some("scale") => Subresource::Scale,
        Some(_) => return Err(Refusal::NoResource),
    };
    Ok(Target {
        resource: &place.resource,
        namespace: place.namespace.as_deref().unwrap_or_default(),
        name: place.name.as_deref().unwrap_or_default(),
        subresource,
    })
}

fn change(
    store: &mut Store,
    moment: &mut Moment<'_>,
    verb: &str,
    request: &Request,
) -> Result<Written, Refusal> {
    if verb == "delete" {
        let options = delete_options(request)?;
        return store.delete(&target(&request.place)?, &options, moment);
    }
    if verb == "create" && request.place.subresource.as_deref() == Some("binding") {
        return bind(store, request);
    }
    if verb == "create" && request.place.name.is_some() {
        return Err(Refusal::MethodNotAllowed);
    }
    let target = target(&request.place)?;
    let resource = store.registry().find(target.resource)?;
    if resource.namespaced && request.place.namespace.is_none() {
        return Err(Refusal::MethodNotAllowed);
    }
    let options = write_options(request)?;
    match verb {
        "create" => store.create(&target, read_object(request)?, &options, moment),
        "update" => store.update(&target, read_object(request)?, &options, moment),
        "patch" => patch(store, moment, request, &target, &options),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

fn patch(
    store: &mut Store,
    moment: &mut Moment<'_>,
    request: &Request,
    target: &Target<'_>,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    let body = read_body(&request.body)?;
    let kind = content_type(&request.headers);
    let patch = match kind.as_str() {
        "application/json-patch+json" => Patch::json(body)?,
        "application/merge-patch+json" => Patch::Merge(body),
        "application/strategic-merge-patch+json" => Patch::Strategic(body),
        "application/apply-patch+yaml" => {
            if request.parameters.get("fieldManager").is_none() {
                return Err(Refusal::Invalid {
                    subject: Subject {
                        group: "meta.k8s.io".into(),
                        kind: "PatchOptions".into(),
                        name: String::new(),
                    },
                    causes: vec![Cause::required("fieldManager", "is required for apply patch")],
                });
            }
            return store.apply(target, body, options, moment);
        }
        other => {
            return Err(Refusal::UnsupportedMediaType(format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml; not {other}"
            )));
        }
    };
    store.patch(target, &patch, options, moment)
}

/// `pods/binding`: a pod is given to a node.
fn bind(store: &mut Store, request: &Request) -> Result<Written, Refusal> {
    let pods = ResourceId::new("", "v1", "pods");
    let place = &request.place;
    if place.resource != pods {
        return Err(Refusal::NoResource);
    }
    let target = Target {
        resource: &pods,
        namespace: place.namespace.as_deref().unwrap_or_default(),
        name: place.name.as_deref().unwrap_or_default(),
        subresource: Subresource::None,
    };
    let object = store.bind(&target, &read_body(&request.body)?)?;
    Ok(Written { object, created: true, warnings: Vec::new() })
}

pub fn content_type(headers: &HeaderMap) -> String {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The object of a creation or an update.
fn read_object(request: &Request) -> Result<Value, Refusal> {
    match content_type(&request.headers).as_str() {
        "" | "application/json" | "application/yaml" => read_body(&request.body),
        _ => Err(Refusal::UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml".to_owned(),
        )),
    }
}

/// A body in JSON, or in YAML, of which JSON is a part.
pub fn read_body(body: &Bytes) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .or_else(|_| {
            let text = String::from_utf8_lossy(body);
            serde_saphyr::from_str::<Value>(&text).map_err(|error| error.to_string())
        })
        .map_err(|error| Refusal::BadRequest(format!("error decoding the request's body: {error}")))
}

fn write_options(request: &Request) -> Result<WriteOptions, Refusal> {
    let agent = request.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let manager = request
        .parameters
        .get("fieldManager")
        .or_else(|| agent.and_then(|agent| agent.split('/').next()))
        .filter(|name| !name.is_empty())
        .unwrap_or("unknown");
    Ok(WriteOptions {
        manager: manager.chars().take(128).collect(),
        dry_run: request.parameters.dry_run()?,
        field_validation: request.parameters.field_validation()?,
        force: request.parameters.flag("force"),
    })
}

fn delete_options(request: &Request) -> Result<DeleteOptions, Refusal> {
    let mut options = if request.body.is_empty() {
        DeleteOptions::default()
    } else {
        DeleteOptions::parse(&read_body(&request.body)?)?
    };
    let parameters = &request.parameters;
    options.dry_run |= parameters.dry_run()?;
    if let Some(policy) = parameters.get("propagationPolicy") {
        options.propagation =
            DeleteOptions::parse(&json!({"propagationPolicy": policy}))?.propagation;
    }
    if let Some(grace) = parameters.get("gracePeriodSeconds").and_then(|text| text.parse().ok()) {
        options.grace = Some(grace);
    }
    Ok(options)
}

fn list_options(parameters: &Parameters) -> ListOptions {
    let text = |name: &str| parameters.get(name).unwrap_or_default().to_owned();
    ListOptions {
        labels: text("labelSelector"),
        fields: text("fieldSelector"),
        limit: parameters.number("limit").and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        continuation: parameters.get("continue").map(decode_continue),
        resource_version: parameters.get("resourceVersion").map(str::to_owned),
        exact: parameters.get("resourceVersionMatch") == Some("Exact"),
    }
}

fn encode_continue(token: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token)
}

/// What is no token of ours is refused by the store.
fn decode_continue(token: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Creates an object at start, or updates it where it is there.
pub(super) fn install(
    store: &mut Store,
    wanted: &Value,
    moment: &mut Moment<'_>,
) -> Result<(), Refusal> {
    let api_version = wanted["apiVersion"].as_str().unwrap_or_default();
    let kind = wanted["kind"].as_str().unwrap_or_default();
    let resource = store.registry().find_kind(api_version, kind).ok_or(Refusal::NoResource)?;
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let id = ResourceId::new(&resource.group, version, &resource.plural);
    let target = Target {
        resource: &id,
        namespace: object::namespace(wanted),
        name: object::name(wanted),
        subresource: Subresource::None,
    };
    let options = WriteOptions { manager: "matriarch-local".into(), ..WriteOptions::default() };
    match store.create(&target, wanted.clone(), &options, moment) {
        Err(Refusal::AlreadyExists(_)) => {
            store.patch(&target, &Patch::Merge(wanted.clone()), &options, moment).map(|_| ())
        }
        other => other.map(|_| ()),
    }
}
