//! What a refused request is answered with: the Status object of Kubernetes.

use serde_json::{Value, json};

/// One reason of an [`Refusal::Invalid`] or of a conflict between field managers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldManagerConflict` …
    pub reason: &'static str,
    /// Path of the field, with dots.
    pub field: String,
    /// What is wrong, without the path.
    pub message: String,
}

impl Cause {
    /// A value that is not allowed; `shown` is the value as the message repeats it.
    #[must_use]
    pub fn invalid(field: impl Into<String>, shown: &str, detail: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {shown}: {detail}"),
        }
    }

    /// A field that must be there.
    #[must_use]
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {detail}")
        };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// A change or value that is never allowed.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            field: field.into(),
            message: format!("Forbidden: {detail}"),
        }
    }

    /// A value that is not one of those allowed.
    #[must_use]
    pub fn unsupported(field: impl Into<String>, shown: &str, allowed: &[String]) -> Self {
        let listed: Vec<String> = allowed.iter().map(|value| format!("{value:?}")).collect();
        Self {
            reason: "FieldValueNotSupported",
            field: field.into(),
            message: format!("Unsupported value: {shown}: supported values: {}", listed.join(", ")),
        }
    }

    /// Two entries of a list that may not be equal.
    #[must_use]
    pub fn duplicate(field: impl Into<String>, shown: &str) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            field: field.into(),
            message: format!("Duplicate value: {shown}"),
        }
    }

    /// A value of another type than the schema says.
    #[must_use]
    pub fn type_invalid(field: impl Into<String>, shown: &str, detail: &str) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            field: field.into(),
            message: format!("Invalid value: {shown}: {detail}"),
        }
    }
}

/// The object that a refusal is about.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Subject {
    /// API group, empty for core.
    pub group: String,
    /// Plural of the resource, or the kind in [`Refusal::Invalid`].
    pub kind: String,
    /// Name of the object.
    pub name: String,
}

impl Subject {
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }
}

/// Why a request is refused. The text is what kube-apiserver says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such object.
    #[error("{} {:?} not found", .0.qualified(), .0.name)]
    NotFound(Subject),
    /// There is no such resource.
    #[error("the server could not find the requested resource")]
    NoResource,
    /// An object of that name exists.
    #[error("{} {:?} already exists", .0.qualified(), .0.name)]
    AlreadyExists(Subject),
    /// Compare-and-swap failed, or a precondition did.
    #[error("Operation cannot be fulfilled on {} {:?}: {detail}", .subject.qualified(), .subject.name)]
    Conflict {
        /// Object.
        subject: Subject,
        /// Why.
        detail: String,
    },
    /// Server-side apply would take fields from other managers.
    #[error("Apply failed with {} conflict{}: {detail}", .causes.len(), plural(.causes.len()))]
    ApplyConflict {
        /// One for each field.
        causes: Vec<Cause>,
        /// The conflicts in words.
        detail: String,
    },
    /// The object breaks rules of its kind.
    #[error("{} {:?} is invalid: {}", .subject.qualified(), .subject.name, joined(.causes))]
    Invalid {
        /// Object, by kind.
        subject: Subject,
        /// Each broken rule.
        causes: Vec<Cause>,
    },
    /// The request itself makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The caller may not do this.
    #[error("{} {:?} is forbidden: {detail}", .subject.qualified(), .subject.name)]
    Forbidden {
        /// Object.
        subject: Subject,
        /// Why.
        detail: String,
    },
    /// Nothing new can be made in a namespace that is going.
    #[error("{} {:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated", .subject.qualified(), .subject.name)]
    NamespaceTerminating {
        /// Object.
        subject: Subject,
        /// Namespace.
        namespace: String,
    },
    /// The wanted resourceVersion is no longer known.
    #[error("{0}")]
    Expired(String),
    /// The watch or continue token is older than what is kept.
    #[error("{0}")]
    Gone(String),
    /// The verb is not served here.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// The body is in a format that this request does not take.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// A well-formed request that cannot be carried out, such as a JSON patch whose test fails.
    #[error("{0}")]
    Unprocessable(String),
    /// The caller is not known.
    #[error("Unauthorized")]
    Unauthorized,
    /// The asked-for resourceVersion is not reached yet.
    #[error("Too large resource version: {wanted}, current: {current}")]
    TooLargeVersion {
        /// Asked for.
        wanted: u64,
        /// Reached.
        current: u64,
    },
    /// A failure on the server's side.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// A failure that kube-apiserver has no reason for: its words alone, with the code 500.
    #[error("{0}")]
    Plain(String),
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn joined(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes {
        let text = format!("{}: {}", cause.field, cause.message);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) }
}

impl Refusal {
    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Unauthorized => 401,
            Self::Forbidden { .. } | Self::NamespaceTerminating { .. } => 403,
            Self::NotFound(_) | Self::NoResource => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyExists(_) | Self::Conflict { .. } | Self::ApplyConflict { .. } => 409,
            Self::Expired(_) | Self::Gone(_) => 410,
            Self::UnsupportedMediaType(_) => 415,
            Self::Invalid { .. } | Self::Unprocessable(_) => 422,
            Self::Internal(_) | Self::Plain(_) => 500,
            Self::TooLargeVersion { .. } => 504,
        }
    }

    /// The machine-readable reason; empty where kube-apiserver gives none.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden { .. } | Self::NamespaceTerminating { .. } => "Forbidden",
            Self::NotFound(_) | Self::NoResource => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::AlreadyExists(_) => "AlreadyExists",
            Self::Conflict { .. } | Self::ApplyConflict { .. } => "Conflict",
            Self::Expired(_) => "Expired",
            Self::Gone(_) => "Gone",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::Invalid { .. } | Self::Unprocessable(_) => "Invalid",
            Self::Internal(_) => "InternalError",
            Self::Plain(_) => "",
            Self::TooLargeVersion { .. } => "Timeout",
        }
    }

    fn details(&self) -> Option<Value> {
        match self {
            Self::NotFound(subject)
            | Self::AlreadyExists(subject)
            | Self::Conflict { subject, .. }
            | Self::Forbidden { subject, .. } => Some(details(subject, &[])),
            Self::NamespaceTerminating { subject, namespace } => Some(details(
                subject,
                &[Cause {
                    reason: "NamespaceTerminating",
                    field: "metadata.namespace".to_owned(),
                    message: format!("namespace {namespace} is being terminated"),
                }],
            )),
            Self::Invalid { subject, causes } => Some(details(subject, causes)),
            Self::ApplyConflict { causes, .. } => Some(details(&Subject::default(), causes)),
            Self::NoResource | Self::MethodNotAllowed | Self::Unprocessable(_) => Some(json!({})),
            Self::TooLargeVersion { .. } => Some(json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1
            })),
            Self::BadRequest(_)
            | Self::Expired(_)
            | Self::Gone(_)
            | Self::UnsupportedMediaType(_)
            | Self::Unauthorized
            | Self::Internal(_)
            | Self::Plain(_) => None,
        }
    }

    /// The Status object that the client reads.
    #[must_use]
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
        });
        if !self.reason().is_empty() {
            status["reason"] = self.reason().into();
        }
        if let Some(details) = self.details() {
            status["details"] = details;
        }
        status["code"] = self.code().into();
        status
    }
}

fn details(subject: &Subject, causes: &[Cause]) -> Value {
    let mut details = json!({});
    for (field, value) in
        [("name", &subject.name), ("group", &subject.group), ("kind", &subject.kind)]
    {
        if !value.is_empty() {
            details[field] = value.as_str().into();
        }
    }
    if !causes.is_empty() {
        let list: Vec<Value> = causes
            .iter()
            .map(|cause| {
                json!({"reason": cause.reason, "message": cause.message, "field": cause.field})
            })
            .collect();
        details["causes"] = list.into();
    }
    details
}
