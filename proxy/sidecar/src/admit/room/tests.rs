//! tests of the room: what a body takes of it, and for how long.

use std::convert::Infallible;

use http_body::Frame;
use http_body_util::StreamBody;
use tokio_stream::StreamExt as _;

use super::super::tests::policy;
use super::*;

const SOON: Duration = Duration::from_millis(30);

type Frames = Vec<Result<Frame<Bytes>, Infallible>>;

fn frames(parts: &[&[u8]]) -> Frames {
    parts.iter().map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect()
}

/// A body that ends.
fn ends(parts: &[&[u8]]) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Unpin {
    StreamBody::new(tokio_stream::iter(frames(parts)))
}

/// A body that goes on after this, later.
fn stalls(parts: &[&[u8]]) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Unpin {
    StreamBody::new(tokio_stream::iter(frames(parts)).chain(tokio_stream::pending()))
}

fn soon(policy: &AsyncPolicy, waits_for_room: bool) -> Bounds<'_> {
    Bounds { waits_for_room, ..Bounds::within(policy, SOON) }
}

#[track_caller]
fn problem_of(unread: Unread) -> (Bytes, problem::Kind) {
    match unread {
        Unread::Begun(read, problem) => (read, problem.kind),
        unread => panic!("{unread:?}"),
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_gives_back_what_it_did_not_need() {
    let (policy, room) = (policy(), Room::of(limits::MESSAGE_BODY_BYTES_TOTAL));
    let total = room.left_kib();
    let mut held = Vec::new();
    for waits in [true, false] {
        let read =
            room.read(&mut ends(&[&[1; 1000], &[2; 1000]]), None, &soon(&policy, waits)).await.unwrap();
        assert_eq!((read.0.len(), read.0[999], read.0[1000]), (2000, 1, 2));
        held.push(read.1);
    }
    assert_eq!(total - room.left_kib(), 4, "two KiB each");
    drop(held);
    assert_eq!(room.left_kib(), total);
}

#[tokio::test]
async fn an_upload_that_stalls_is_given_up_and_its_room_is_free() {
    let (policy, room) = (policy(), Room::of(2 * limits::MESSAGE_BODY_BYTES_MAX));
    let total = room.left_kib();
    for length in [None, Some(3000)] {
        let unread = room.read(&mut stalls(&[b"half"]), length, &soon(&policy, true)).await.unwrap_err();
        let (read, kind) = problem_of(unread);
        assert_eq!((&read[..], kind), (&b"half"[..], problem::BODY_LATE));
    }
    let half: &[u8] = &[0, 0, 0, 0, 9, 1];
    let unread = room.read_unary(&mut stalls(&[half]), &soon(&policy, true)).await.unwrap_err();
    assert_eq!(problem_of(unread), (Bytes::copy_from_slice(half), problem::BODY_LATE), "half a gRPC message");
    assert_eq!(room.left_kib(), total);
}

#[tokio::test]
async fn without_room_a_body_to_be_stored_waits_and_one_to_be_tried_does_not() {
    let (policy, room) = (policy(), Room::of(limits::MESSAGE_BODY_BYTES_MAX));
    let (bounds, mut body) = (soon(&policy, true), ends(&[b"x"]));
    let first = room.read(&mut body, Some(limits::MESSAGE_BODY_BYTES_MAX), &bounds);
    let (_, mut first) = first.await.unwrap();
    assert_eq!(first.as_ref().unwrap().num_permits(), 1);
    first.as_mut().unwrap().merge(room.0.clone().try_acquire_many_owned(4095).unwrap());
    for (waits, length) in [(true, None), (true, Some(1)), (false, None), (false, Some(1))] {
        let began = Instant::now();
        let unread = room.read(&mut ends(&[b"x"]), length, &soon(&policy, waits)).await.unwrap_err();
        let problem = Problem::from(unread);
        assert_eq!((problem.kind, problem.kind.status.as_u16()), (problem::NO_ROOM, 503));
        assert!(problem.retry_after.is_some(), "when to come again");
        assert_eq!(began.elapsed() >= SOON, waits, "{:?}", began.elapsed());
    }
    let call: &[u8] = &[0, 0, 0, 0, 1, 9];
    let unread = room.read_unary(&mut ends(&[call]), &soon(&policy, false)).await.unwrap_err();
    assert_eq!(problem_of(unread), (Bytes::copy_from_slice(call), problem::NO_ROOM), "a gRPC call too");
    let bounds = soon(&policy, true);
    let mut body = ends(&[b"y"]);
    let second = room.read(&mut body, Some(1), &bounds);
    let free = async { drop(first) };
    let (second, ()) = tokio::join!(second, free);
    assert_eq!(second.unwrap().0, "y", "it waited for the first");
}

#[tokio::test]
async fn a_body_over_the_bound_is_begun_and_holds_no_room() {
    let policy = AsyncPolicy { body_bytes_max: 6, ..policy() };
    let room = Room::of(limits::MESSAGE_BODY_BYTES_TOTAL);
    let total = room.left_kib();
    let unread = room.read(&mut ends(&[b"long", b"er", b"!"]), None, &soon(&policy, true)).await;
    assert_eq!(problem_of(unread.unwrap_err()), ("longer!".into(), problem::BODY_TOO_LARGE));
    let unread = room.read(&mut ends(&[b"longer!"]), Some(7), &soon(&policy, true)).await;
    assert_eq!(problem_of(unread.unwrap_err()), (Bytes::new(), problem::BODY_TOO_LARGE));
    let beyond = AsyncPolicy { body_bytes_max: u64::MAX, ..policy };
    assert_eq!(soon(&beyond, true).max, limits::MESSAGE_BODY_BYTES_CAP, "whatever the policy says");
    assert_eq!(room.left_kib(), total);
}

#[tokio::test]
async fn a_call_is_one_message_and_its_end() {
    let (policy, room) = (policy(), Room::of(limits::MESSAGE_BODY_BYTES_TOTAL));
    let total = room.left_kib();
    let message: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
    let bounds = soon(&policy, true);
    let (whole, held) = room.read_unary(&mut ends(&[&message[..3], &message[3..]]), &bounds).await.unwrap();
    assert_eq!((&whole[..], total - room.left_kib()), (message, 1));
    drop(held);
    let too_long: &[u8] = &[0, 0xff, 0xff, 0xff, 0xff, 1];
    let streams: [(&str, Frames); 4] = [
        ("two messages", frames(&[message, message])),
        ("half a message", frames(&[&message[..6]])),
        ("no message", frames(&[])),
        ("a longer message than may be stored", frames(&[too_long])),
    ];
    for (row, frames) in streams {
        let mut body = StreamBody::new(tokio_stream::iter(frames));
        let unread = room.read_unary(&mut body, &soon(&policy, true)).await;
        assert!(matches!(unread, Err(Unread::Stream(_))), "{row}: {unread:?}");
    }
    let began = Instant::now();
    let bounds = Bounds::to_store(&policy);
    let unread = room.read_unary(&mut stalls(&[message]), &bounds).await;
    assert!(matches!(unread, Err(Unread::Stream(_))), "it stays open: {unread:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(room.left_kib(), total, "a stream holds none");
}
