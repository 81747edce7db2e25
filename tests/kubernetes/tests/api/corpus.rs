//! corpus: specs of our kinds, right and wrong, each with the verdict it must get.
//!
//! Every edge of a range, every name of a table, every choice of one among several. Where only the reader
//! can tell that a spec is wrong it says why; these are what the validating webhook is for.

mod access_policy;
mod async_policy;
mod backend_policy;
mod delivery;
mod mesh_trust;

/// What must become of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
    /// The API server lets it in, for this reason.
    RefusedByTheReaderAlone(&'static str),
}

/// One spec.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) kind: &'static str,
    pub(crate) spec: String,
    pub(crate) verdict: Verdict,
}

impl Case {
    /// The object, under this name.
    pub(crate) fn document(&self, name: &str) -> String {
        let Self { kind, spec, .. } = self;
        let namespace = if *kind == "MeshTrust" { "" } else { ", namespace: shop" };
        format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {spec}\n"
        )
    }
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for part in [
        async_policy::cases(),
        delivery::cases(),
        backend_policy::cases(),
        access_policy::cases(),
        mesh_trust::cases(),
    ] {
        cases.extend(part);
    }
    cases
}

/// Specs of one kind: those that are right, then those that are wrong.
fn table(kind: &'static str, right: &[&str], wrong: &[&str]) -> Vec<Case> {
    let case = |spec: &&str, verdict| Case { kind, spec: (*spec).to_owned(), verdict };
    let right = right.iter().map(|spec| case(spec, Verdict::Accepted));
    right.chain(wrong.iter().map(|spec| case(spec, Verdict::Refused))).collect()
}

/// Specs that only the reader refuses, each with the reason.
fn beyond(kind: &'static str, rows: &[(&str, &'static str)]) -> Vec<Case> {
    let case = |(spec, why): &(&str, &'static str)| Case {
        kind,
        spec: (*spec).to_owned(),
        verdict: Verdict::RefusedByTheReaderAlone(why),
    };
    rows.iter().map(case).collect()
}

/// `count` items of a list, made by their number.
fn items(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}
