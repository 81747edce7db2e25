//! mesh_trust: whom the mesh trusts.

use super::{Case, items, table};

const KIND: &str = "MeshTrust";

pub(super) fn cases() -> Vec<Case> {
    let pem = |body: &str| format!("\"-----BEGIN CERTIFICATE-----\\n{body}\\n-----END CERTIFICATE-----\"");
    let anchors = |list: &str| format!("{{anchors: [{list}]}}");
    let many = |count| anchors(&items(count, |_| pem("AAAA")));
    let frame = "-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----".len();
    let right = [anchors(""), many(1), many(16), anchors(&pem(&"A".repeat(65_536 - frame)))];
    let wrong = [
        "{}".to_owned(),
        many(17),
        anchors(&pem(&"A".repeat(65_537 - frame))),
        anchors("x"),
        anchors("''"),
        anchors("5"),
        anchors("\"-----BEGIN CERTIFICATE-----\""),
        anchors(&pem("-----BEGIN EC PRIVATE KEY-----")),
        "{anchors: x}".to_owned(),
        "{anchor: []}".to_owned(),
    ];
    table(KIND, &right.each_ref().map(String::as_str), &wrong.each_ref().map(String::as_str))
}
