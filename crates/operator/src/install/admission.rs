//! A cluster's agents share a ServiceAccount, and RBAC cannot tell them apart: with this policy the
//! API server does (traps K5).

use matriarch_api::Kind;
use serde_json::{Value, json};

use super::Options;

const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// What the API server puts beside the user's name when a token is bound to a pod.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// The policy and its binding: the status of an Instance is written by the pod of its name alone,
/// if it is a ServiceAccount that writes.
pub fn own_instance_policy(options: &Options) -> [Value; 2] {
    let name = format!("{}-own-instance", options.name());
    let metadata = options.metadata_named(&name);
    let status = format!("{}/status", Kind::Instance.plural());
    let extra = "request.userInfo.extra";
    let own = format!("'{POD_NAME}' in {extra} && {extra}['{POD_NAME}'][0] == request.name");
    let policy = json!({
        "apiVersion": ADMISSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata,
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": [options.identity.group()],
                "apiVersions": [options.identity.version()],
                "operations": ["UPDATE"],
                "resources": [status],
            }]},
            "matchConditions": [{
                "name": "service-accounts",
                "expression": "'system:serviceaccounts' in request.userInfo.groups",
            }],
            "validations": [{
                "expression": own,
                "message": "an agent writes the status of the Instance of its own pod alone",
                "reason": "Forbidden",
            }],
        },
    });
    let binding = json!({
        "apiVersion": ADMISSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": { "policyName": name, "validationActions": ["Deny"] },
    });
    [policy, binding]
}
