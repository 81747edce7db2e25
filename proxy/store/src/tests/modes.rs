//! tests/modes: who may read what is stored.

use std::fs::{Permissions, metadata, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::*;

fn mode(path: &Path) -> u32 {
    metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// The mode of each file.
fn modes(directory: &Path) -> Vec<(String, u32)> {
    let entries = std::fs::read_dir(directory).expect("it is there");
    let each = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry");
        (entry.file_name().to_string_lossy().into_owned(), mode(&entry.path()))
    };
    entries.map(each).collect()
}

#[tokio::test]
async fn a_directory_and_its_files_are_for_their_owner_alone() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("made/queue");
    let (store, _) = open(&directory);
    append(&store, draft(b"body")).await;
    assert_eq!((mode(&directory), mode(&parent.path().join("made"))), (0o700, 0o700));
    let found = modes(&directory);
    for name in ["messages.db", "messages.db-wal", "messages.db-shm", "lock"] {
        assert!(found.iter().any(|(file, _)| file == name), "{name}: {found:?}");
    }
    assert!(found.iter().all(|(_, mode)| *mode == 0o600), "{found:?}");
    store.close().await;
}

#[tokio::test]
async fn files_of_an_earlier_version_are_taken_back_and_the_directory_is_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    set_permissions(directory.path(), Permissions::from_mode(0o750)).unwrap();
    open(directory.path()).0.close().await;
    for (name, _) in modes(directory.path()) {
        set_permissions(directory.path().join(name), Permissions::from_mode(0o644)).unwrap();
    }
    let (store, _) = open(directory.path());
    let found = modes(directory.path());
    assert!(found.iter().all(|(_, mode)| *mode == 0o600), "{found:?}");
    assert_eq!(mode(directory.path()), 0o750);
    store.close().await;
}
