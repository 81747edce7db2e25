//! lost: messages whose queue has no row any more stand where they are, and are seen.

use super::*;

fn names(opened: &Opened) -> Vec<(u16, &str)> {
    opened.queues.iter().map(|row| (row.id.0, row.name.as_str())).collect()
}

#[tokio::test]
async fn a_number_that_messages_name_is_given_to_no_other_queue() {
    let store = in_memory();
    append(&store, draft(b"body")).await;
    let orders = store.put_queue("orders".into(), Bytes::new()).await.expect("it is put");
    assert_ne!(orders, QUEUE);
    let last = append(&store, Draft { queue: QueueId(u16::MAX), ..draft(b"body") }).await;
    let mails = store.put_queue("mails".into(), Bytes::new()).await.expect("there is a gap");
    assert!(![QUEUE, orders].contains(&mails));
    one(&store, end(last)).await;
}

#[tokio::test]
async fn messages_without_a_queue_are_found_in_one_that_is_made_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let orders = store.put_queue("orders".into(), Bytes::new()).await.expect("it is put");
    append(&store, Draft { queue: orders, ..draft(b"body") }).await;
    append(&store, Draft { queue: QueueId(7), ..draft(b"body") }).await;
    store.close().await;
    spoil(directory.path(), "DELETE FROM queues");
    for _ in 0..2 {
        let (opened, entries) = try_open(options(Some(directory.path()))).expect("it opens");
        assert_eq!((names(&opened), entries.len()), (vec![(orders.0, "lost-1"), (7, "lost-7")], 2));
        assert!(opened.queues.iter().all(|row| row.settings.is_empty()));
        opened.store.close().await;
    }
    let (store, _) = open(directory.path());
    let mails = store.put_queue("mails".into(), Bytes::new()).await.expect("it is put");
    assert_eq!(mails, QueueId(8));
}

#[tokio::test]
async fn a_salvage_makes_a_queue_up_whose_row_cannot_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    for name in ["orders", "mails"] {
        let queue = store.put_queue(name.into(), Bytes::new()).await.expect("it is put");
        append(&store, Draft { queue, ..draft(b"body") }).await;
    }
    store.close().await;
    spoil(directory.path(), "UPDATE queues SET settings = 5 WHERE name = 'orders'");
    let (opened, entries) =
        try_open(Options { salvage: true, ..options(Some(directory.path())) }).expect("it is salvaged");
    assert_eq!((names(&opened), entries.len(), opened.lost), (vec![(2, "mails"), (1, "lost-1")], 2, 0));
}
