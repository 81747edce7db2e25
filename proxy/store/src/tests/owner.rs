//! owner: a directory is one workload's, and another is told whose.

use super::*;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

fn of(directory: &Path, owner: &str) -> Options {
    Options { owner: Some(owner.to_owned()), ..options(Some(directory)) }
}

#[tokio::test]
async fn another_owner_is_refused_and_both_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    // Stored before directories had an owner: whoever opens it first has it.
    let (store, _) = open(directory.path());
    append(&store, draft(b"body")).await;
    store.close().await;
    try_open(of(directory.path(), WEB)).expect("it is nobody's").0.store.close().await;
    let refused = try_open(of(directory.path(), OTHER)).err().expect("it is web's");
    assert!(matches!(&refused, OpenError::Owner { found, owner, .. } if found == WEB && owner == OTHER));
    let said = refused.to_string();
    assert!(said.contains("another owner") && said.contains(WEB) && said.contains(OTHER), "{said}");
    for salvage in [false, true] {
        let (opened, entries) =
            try_open(Options { salvage, ..of(directory.path(), WEB) }).expect("it is ours");
        assert_eq!(entries.len(), 1);
        opened.store.close().await;
        let refused = try_open(Options { salvage, ..of(directory.path(), OTHER) });
        assert!(matches!(refused, Err(OpenError::Owner { .. })));
    }
    // The remedy that is named.
    std::fs::remove_file(directory.path().join("lock")).expect("it is there");
    try_open(of(directory.path(), OTHER)).expect("it was handed over");
}

#[tokio::test]
async fn an_owner_that_was_not_written_to_its_end_is_none() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("lock"), &WEB[..20]).expect("it is written");
    try_open(of(directory.path(), OTHER)).expect("it is nobody's").0.store.close().await;
    assert!(matches!(try_open(of(directory.path(), WEB)), Err(OpenError::Owner { .. })));
}
