//! full: a real disk without room, and one that fails for real: ext4 on a loop device over a small tmpfs.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use store::message::{Change, Changed, Draft, QueueId, State};
use store::{Options, Store, StoreError};
use tempfile::TempDir;

use crate::client::{Client, open, options};
use crate::model::{Ask, Held, Model, Said, after};
use crate::seeds::with_seed;

/// A file system of its own; gone with this.
struct Device {
    directory: TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr).trim()))
}

impl Device {
    /// ext4 of `disk_mib` on a tmpfs of `backing_mib`.
    fn new(disk_mib: u32, backing_mib: u32) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let device = Self { directory };
        for folder in ["backing", "disk"] {
            std::fs::create_dir(device.at(folder)).map_err(|e| e.to_string())?;
        }
        let size = format!("size={backing_mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tidegate-test", &device.path("backing")])?;
        run("truncate", &["-s", &format!("{disk_mib}M"), &device.path("backing/image")])?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-J", "size=4", &device.path("backing/image")])?;
        device.mount()?;
        Ok(device)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).to_string_lossy().into_owned()
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.path("backing/image"), &self.path("disk")])
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for name in ["disk", "backing"] {
            // Not mounted if it came to that.
            let _ = run("umount", &["-l", &self.path(name)]);
        }
    }
}

/// A device, or a loud word why there is none; with `CI` set there must be one.
fn device(disk_mib: u32, backing_mib: u32) -> Option<Device> {
    match Device::new(disk_mib, backing_mib) {
        Ok(device) => Some(device),
        Err(why) if std::env::var_os("CI").is_some() => panic!("no loop device: {why}"),
        Err(why) => {
            eprintln!("SKIPPED: no loop device here: {why}");
            None
        }
    }
}

fn on(disk: &Path) -> Held {
    let directory = disk.join("store");
    std::fs::create_dir_all(&directory).expect("it is made");
    open(Options { bytes_max: 96 << 20, allow_volatile: false, ..options(&directory) }).expect("it opens")
}

/// Stores until something else is answered; returns what.
async fn fill(client: &mut Client, store: &Store, at_most: usize) -> Result<Vec<Model>, StoreError> {
    client.sizes = 40;
    for _ in 0..at_most {
        let (number, change) = client.append();
        let ask = Ask::Changes(vec![(number, change.clone())]);
        match store.write(vec![change]).await {
            Ok(changed) => {
                let said = Said::Changed(changed);
                client.model = after(&client.model, &[(ask, said)]).expect("a right answer").swap_remove(0);
            }
            Err(StoreError::Poisoned(why)) => {
                return Ok(after(&client.model, &[(ask, Said::Unknown(why.to_string()))]).expect("two ways"));
            }
            Err(other) => return Err(other),
        }
    }
    panic!("it never fills up");
}

#[test]
fn a_full_disk_refuses_what_is_new_settles_what_is_there_and_takes_again() {
    let Some(device) = device(48, 64) else { return };
    with_seed("a_full_disk", 1, async || {
        let disk = device.at("disk");
        let held = on(&disk);
        let store = held.opened.store;
        let mut client = Client::new(1);
        std::fs::write(disk.join("filler"), vec![1; 24 << 20]).expect("there is room");
        let refused = fill(&mut client, &store, 5_000).await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        assert!(store.condition().full.is_some() && store.condition().poisoned.is_none());
        // Nothing is left, not even for others.
        let mut settled = 0;
        for (number, message) in client.model.messages.clone() {
            let position = message.position.expect("it was told");
            let end = Change::End { position, of: message.state, record: None, result: None };
            let changed = store.write(vec![end.clone()]).await.expect("settles go on");
            assert_eq!(changed, [Changed::Done { order: 0 }]);
            client
                .model
                .apply(&Ask::Changes(vec![(number, end)]), Some(&Said::Changed(changed)))
                .expect("it is right");
            settled += 1;
            if settled == 20 {
                break;
            }
        }
        std::fs::remove_file(disk.join("filler")).expect("it is there");
        let (number, change) = client.append();
        let changed = store.write(vec![change.clone()]).await.expect("there is room again");
        client
            .model
            .apply(&Ask::Changes(vec![(number, change)]), Some(&Said::Changed(changed)))
            .expect("it is right");
        assert!(store.condition().full.is_none());
        store.close().await;
        let held = on(&disk);
        held.settle(vec![client.model.clone()]).await.expect("all that was answered is there");
        held.opened.store.close().await;
    });
}

/// The file for writing ahead and the database's own free pages take up the disk, and nothing else does.
#[test]
fn a_store_that_was_emptied_takes_again_on_the_disk_that_it_has_filled() {
    let Some(device) = device(64, 96) else { return };
    with_seed("a_store_that_was_emptied", 1, async || {
        let directory = device.at("disk").join("store");
        std::fs::create_dir_all(&directory).expect("it is made");
        let options = Options { bytes_max: 1 << 30, allow_volatile: false, ..options(&directory) };
        let store = open(options).expect("it opens").opened.store;
        let append = || {
            Change::Append(Draft {
                queue: QueueId(1),
                lane: None,
                priority: 3,
                due_at: None,
                head: Bytes::from_static(b"head"),
                body: Bytes::from(vec![7; 200_000]),
                dedupe: None,
            })
        };
        for round in 1..=3 {
            let mut stored = Vec::new();
            let refused = loop {
                match store.write(vec![append()]).await.as_deref() {
                    Ok([Changed::Stored(position)]) => stored.push(*position),
                    Err(StoreError::Full(why)) => break why.clone(),
                    other => panic!("{other:?}"),
                }
            };
            assert!(stored.len() > 20, "round {round}: {} were taken", stored.len());
            assert!(refused.contains("bytes must be free"), "{refused}");
            for position in stored {
                let end = Change::End { position, of: State::Waiting, record: None, result: None };
                store.write(vec![end]).await.expect("settles go on");
            }
        }
        store.close().await;
    });
}

/// What is set aside for settles is taken before a message is.
#[test]
fn a_store_opened_without_room_for_its_ballast_takes_nothing_in_until_it_has_it() {
    let Some(device) = device(48, 64) else { return };
    with_seed("a_store_opened_without_room", 1, async || {
        let disk = device.at("disk");
        on(&disk).opened.store.close().await;
        let ballast = disk.join("store/ballast");
        let length = || std::fs::metadata(&ballast).expect("it is there").len();
        let whole = length();
        std::fs::write(&ballast, []).expect("it is given back");
        let filler = disk.join("filler");
        let mut filling = std::fs::File::create(&filler).expect("there is room");
        while std::io::Write::write_all(&mut filling, &[1; 64 << 10]).is_ok() {}
        let filled = filling.metadata().expect("it is there").len();
        filling.set_len(filled - (1 << 20)).expect("it is cut");
        let store = on(&disk).opened.store;
        let mut client = Client::new(3);
        let refused = store.write(vec![client.append().1]).await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        drop(filling);
        std::fs::remove_file(&filler).expect("it is there");
        store.write(vec![client.append().1]).await.expect("there is room now");
        assert_eq!(length(), whole);
        store.close().await;
    });
}

#[test]
fn a_disk_whose_flush_fails_for_real_poisons_and_what_was_answered_is_there() {
    let Some(device) = device(96, 16) else { return };
    with_seed("a_disk_whose_flush_fails", 1, async || {
        let disk = device.at("disk");
        let held = on(&disk);
        let mut client = Client::new(2);
        let models = fill(&mut client, &held.opened.store, 5_000).await.expect("its flush fails");
        println!(
            "after {} messages: {:?}",
            client.model.messages.len(),
            held.opened.store.condition().poisoned
        );
        let (_, change) = client.append();
        let again = held.opened.store.write(vec![change]).await;
        assert!(matches!(again, Err(StoreError::Poisoned(_))), "{again:?}");
        drop(held);
        // The power goes: only what the device has is left.
        run("umount", &[&device.path("disk")]).expect("it is unmounted");
        run("mount", &["-o", "remount,size=128m", &device.path("backing")]).expect("there is room");
        device.mount().expect("it is mounted again");
        let held = on(&disk);
        held.settle(models).await.expect("all that was answered is there");
        held.opened.store.close().await;
    });
}
