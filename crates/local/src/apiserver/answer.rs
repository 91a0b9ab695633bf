//! Answers on the wire.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use matriarch_store::Refusal;
use serde_json::Value;

/// An answer in JSON.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    typed(code, "application/json", value.to_string())
}

/// An answer of a content type.
pub fn typed(
    code: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A refused request: its Status.
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    let code = StatusCode::from_u16(refusal.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(code, &refusal.to_status())
}

/// Adds warnings in the form of RFC 7234.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
