//! bound: the file for writing ahead at its bound, and what is said there.

use rusqlite::Connection;
use store::StoreError;

use crate::client::{Client, Home, SMALL};
use crate::disk::{Call, FOR_GOOD, Failure, Fault, Files};
use crate::seeds::with_seed;

/// Stores until something else is said.
async fn fill(client: &mut Client, store: &store::Store) -> StoreError {
    for _ in 0..5_000 {
        let (_, change) = client.append();
        if let Err(refused) = store.write(vec![change]).await {
            return refused;
        }
    }
    panic!("nothing was refused");
}

#[test]
fn a_disk_that_fails_while_the_file_begins_again_is_no_full_one() {
    with_seed("a_disk_that_fails_while", 1, async || {
        let home = Home::with(&Files::new(), 1);
        let store = home.open(4 * SMALL).expect("it opens").opened.store;
        let mut client = Client::new(1);
        client.append();
        // Somebody who reads what was there in the beginning: nothing behind it can be copied.
        let outsider = Connection::open(home.path().join("messages.db")).expect("it opens");
        outsider.execute_batch("BEGIN; SELECT count(*) FROM messages").expect("it reads");
        let refused = fill(&mut client, &store).await;
        assert!(matches!(&refused, StoreError::Full(why) if why.contains("bound")), "{refused}");
        assert!(store.condition().poisoned.is_none());
        home.disk.fail(&[Fault { call: Call::Write, first: 1, times: FOR_GOOD, failure: Failure::Io }]);
        drop(outsider);
        let refused = fill(&mut client, &store).await;
        assert!(matches!(refused, StoreError::Poisoned(_)), "{refused}");
        assert!(home.disk.fired() > 0 && store.condition().poisoned.is_some());
    });
}
