//! frames: HTTP/2 as bytes (RFC 9113 §4, §6; RFC 7541 §6), to say what no library would.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::within;

const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const GOAWAY: u8 = 0x7;
const SETTINGS: u8 = 0x4;
pub(crate) const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const FRAME_BYTES_MAX: usize = 16_384;

pub(crate) const REFUSED_STREAM: u32 = 0x7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

/// One frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("a code is four bytes"))
    }

    /// The status in HEADERS, when it stands where encoders put it: first, indexed, or as three digits.
    pub(crate) fn status(&self) -> Option<u16> {
        match *self.payload.first()? {
            0x88 => Some(200),
            0x8c => Some(400),
            0x8d => Some(404),
            // A literal with the name `:status`; three Huffman-coded digits are two or three bytes.
            0x08 | 0x48 => match &self.payload[1..] {
                [3, digits @ ..] => std::str::from_utf8(&digits[..3]).ok()?.parse().ok(),
                [0x82, a, b, ..] => digits([*a, *b, 0]),
                [0x83, a, b, c, ..] => digits([*a, *b, *c]),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Three digits of RFC 7541's Huffman code: 0 to 2 have five bits, 3 to 9 six.
fn digits([a, b, c]: [u8; 3]) -> Option<u16> {
    let bits = u32::from_be_bytes([0, a, b, c]);
    let (mut at, mut number) = (24, 0);
    for _ in 0..3 {
        let five = bits >> (at - 5) & 0x1f;
        let (digit, length) = if five <= 2 { (five, 5) } else { (bits >> (at - 6) & 0x3f, 6) };
        let digit = if length == 6 { digit.checked_sub(0x19)? + 3 } else { digit };
        if digit > 9 {
            return None;
        }
        (number, at) = (number * 10 + u16::try_from(digit).ok()?, at - length);
    }
    Some(number)
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A server's first frame.
pub(crate) fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

/// The stream was not processed.
pub(crate) fn refuse(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes())
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut left = text.len();
    if left < 127 {
        bytes.push(u8::try_from(left).expect("below 127"));
    } else {
        bytes.push(127);
        left -= 127;
        while left >= 128 {
            bytes.push(u8::try_from(left % 128).expect("below 128") | 128);
            left /= 128;
        }
        bytes.push(u8::try_from(left).expect("below 128"));
    }
    bytes.extend_from_slice(text);
    bytes
}

/// POST whose body follows.
pub(crate) fn post(stream: u32, authority: &str, path: &str) -> Vec<u8> {
    let block = [&[0x83, 0x86, 0x04], &*string(path.as_bytes()), &[0x01], &*string(authority.as_bytes())];
    frame(HEADERS, END_HEADERS, stream, &block.concat())
}

/// A piece of a body, or its last.
pub(crate) fn data(stream: u32, bytes: &[u8], is_last: bool) -> Vec<u8> {
    frame(DATA, if is_last { END_STREAM } else { 0 }, stream, bytes)
}

/// GET with further headers, in as many frames as it takes.
pub(crate) fn get(stream: u32, authority: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04];
    block.extend(string(path.as_bytes()));
    block.push(0x01);
    block.extend(string(authority.as_bytes()));
    for (name, value) in more {
        block.push(0);
        block.extend(string(name.as_bytes()));
        block.extend(string(value.as_bytes()));
    }
    let mut chunks = block.chunks(FRAME_BYTES_MAX).peekable();
    let (mut bytes, mut kind, mut flags) = (Vec::new(), HEADERS, END_STREAM);
    while let Some(chunk) = chunks.next() {
        if chunks.peek().is_none() {
            flags |= END_HEADERS;
        }
        bytes.extend(frame(kind, flags, stream, chunk));
        (kind, flags) = (CONTINUATION, 0);
    }
    bytes
}

/// An HTTP/2 connection of bytes.
pub(crate) struct Connection(pub(crate) TcpStream);

impl Connection {
    /// Connects with prior knowledge and sees the server's settings.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let mut connection = Self(TcpStream::connect(address).await.expect("it listens"));
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        connection.send(&settings()).await;
        let first = connection.next().await.expect("the server's settings");
        assert_eq!(first.kind, SETTINGS);
        connection.send(&frame(SETTINGS, ACK, 0, &[])).await;
        connection
    }

    /// Sends bytes; a connection that is gone already is seen by who reads.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        within(async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            Some(Frame { kind: head[3], stream, payload })
        })
        .await
    }

    /// The next frame of a kind.
    pub(crate) async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}
