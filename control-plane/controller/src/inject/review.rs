//! review: the words of AdmissionReview v1.

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::{Value, json};

type Asked = AdmissionRequest<DynamicObject>;

/// Letters of one warning: the API server cuts those that are longer.
const WARNING_LETTERS_MAX: usize = 256;
/// Warnings of one answer, that they are read.
const WARNINGS_MAX: usize = 10;

/// Reads what the API server sent.
pub(super) fn read(body: &[u8]) -> Result<Asked, String> {
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_slice(body).map_err(|error| format!("this is no AdmissionReview: {error}"))?;
    review.try_into().map_err(|_| "this AdmissionReview has no request".to_owned())
}

/// What is sent back.
pub(super) fn print(response: AdmissionResponse) -> Result<Vec<u8>, String> {
    serde_json::to_vec(&response.into_review()).map_err(|error| error.to_string())
}

/// As it is.
pub(super) fn allowed(request: &Asked) -> AdmissionResponse {
    AdmissionResponse::from(request)
}

/// Not at all.
pub(super) fn denied(request: &Asked, why: &str) -> AdmissionResponse {
    AdmissionResponse::from(request).deny(why)
}

/// As it is, with a word.
pub(super) fn warned(request: &Asked, warnings: Vec<String>) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    let short = |warning: String| warning.chars().take(WARNING_LETTERS_MAX).collect();
    let warnings: Vec<String> = warnings.into_iter().take(WARNINGS_MAX).map(short).collect();
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    response
}

/// As it is to be.
pub(super) fn patched(
    request: &Asked,
    (before, after): (&Value, &Value),
    warnings: Vec<String>,
) -> Result<AdmissionResponse, String> {
    let patch = serde_json::from_value(patch(before, after)).map_err(|error| error.to_string())?;
    warned(request, warnings).with_patch(patch).map_err(|error| error.to_string())
}

/// The JSON patch (RFC 6902) that makes `after` of `before`: each field of `metadata` and `spec` that
/// differs, whole. `add` replaces what is there.
fn patch(before: &Value, after: &Value) -> Value {
    let mut operations = Vec::new();
    for part in ["metadata", "spec"] {
        for (key, value) in after[part].as_object().into_iter().flatten() {
            if before[part].get(key) != Some(value) {
                operations.push(json!({"op": "add", "path": format!("/{part}/{key}"), "value": value}));
            }
        }
    }
    Value::Array(operations)
}
