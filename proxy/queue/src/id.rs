//! id: a message's name outside, which says where it lies.
//!
//! A UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, which are the time the message was
//! accepted, and 74 bits that the RFC leaves to us. Those hold the class (1 bit), the position in the
//! store (40 bits) and the holder (32 bits: the IPv4 address of the pod whose volume keeps it); one is
//! zero. So a status request finds its message without an index, and any sidecar of the mesh finds
//! the pod to ask. The holder's address is stored with the message: should the pod come back at another one, the
//! id is still what its caller was told. The position alone would let a stale id name a message that took the number in a
//! fresh directory: the time must equal the stored one.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use store::message::{Position, Timestamp};

/// What a 202 means for a message, as its id carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// In memory: survives the application's crash.
    Memory,
    /// Flushed on the pod's volume.
    Local,
}

impl Class {
    /// `memory` or `local`, as `Tidegate-Durability` says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Local => "local",
        }
    }
}

/// A message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u128);

const POSITION_BITS: u32 = 40;
const TIME_MAX: u64 = (1 << 48) - 1;
const VERSION: u128 = 7 << 76;
const VARIANT: u128 = 0b10 << 62;

impl MessageId {
    /// The id of the message that was accepted at `enqueued_at` and lies at `position` with `holder`.
    #[must_use]
    pub fn new(class: Class, enqueued_at: Timestamp, position: Position, holder: Ipv4Addr) -> Self {
        let class = u128::from(class == Class::Local);
        let position = u128::from(position.0 & ((1 << POSITION_BITS) - 1));
        // 74 bits: a zero, the class, the position, the holder.
        let ours = class << 72 | position << 32 | u128::from(holder.to_bits());
        let (high, low) = (ours >> 62, ours & ((1 << 62) - 1));
        Self(u128::from(enqueued_at.0.min(TIME_MAX)) << 80 | VERSION | high << 64 | VARIANT | low)
    }

    fn ours(self) -> u128 {
        (self.0 >> 64 & 0xfff) << 62 | self.0 & ((1 << 62) - 1)
    }

    /// When it was accepted, to the millisecond.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "48 bits remain")]
    pub fn enqueued_at(self) -> Timestamp {
        Timestamp((self.0 >> 80) as u64)
    }

    /// Where it lies.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked to 40 bits")]
    pub fn position(self) -> Position {
        Position((self.ours() >> 32) as u64 & ((1 << POSITION_BITS) - 1))
    }

    /// Which store keeps it.
    #[must_use]
    pub fn class(self) -> Class {
        if self.ours() >> 72 & 1 == 1 { Class::Local } else { Class::Memory }
    }

    /// The pod that keeps it.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the lowest 32 bits are meant")]
    pub fn holder(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.ours() as u32)
    }

    /// The 16 bytes of the UUID.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        let (a, b, c) = (n >> 96, n >> 80 & 0xffff, n >> 64 & 0xffff);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", n >> 48 & 0xffff, n & 0xffff_ffff_ffff)
    }
}

/// Not the id of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message id: a UUIDv7 is expected")]
pub struct NotAnId;

impl FromStr for MessageId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let bytes = text.as_bytes();
        let dashes = [8, 13, 18, 23];
        let shaped = bytes.len() == 36
            && bytes.iter().enumerate().all(|(at, byte)| {
                if dashes.contains(&at) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
            });
        if !shaped {
            return Err(NotAnId);
        }
        let number = u128::from_str_radix(&text.replace('-', ""), 16).map_err(|_| NotAnId)?;
        let id = Self(number);
        // The version, the variant, and the bit that is always zero.
        let ours = number >> 76 & 0xf == 7 && number >> 62 & 0b11 == 0b10 && id.ours() >> 73 == 0;
        if ours { Ok(id) } else { Err(NotAnId) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_says_what_it_was_made_of(
            at in 0..=TIME_MAX, position in 0u64..1 << 40, holder: u32, local: bool,
        ) {
            let class = if local { Class::Local } else { Class::Memory };
            let holder = Ipv4Addr::from_bits(holder);
            let id = MessageId::new(class, Timestamp(at), Position(position), holder);
            let read: MessageId = id.to_string().parse().unwrap();
            prop_assert_eq!(read, id);
            prop_assert_eq!(read.enqueued_at(), Timestamp(at));
            prop_assert_eq!(read.position(), Position(position));
            prop_assert_eq!(read.class(), class);
            prop_assert_eq!(read.holder(), holder);
        }
    }

    #[test]
    fn an_id_is_a_uuid_of_version_seven() {
        let id = MessageId::new(
            Class::Local,
            Timestamp(0x0190_0000_0001),
            Position(5),
            Ipv4Addr::new(10, 0, 0, 7),
        );
        assert_eq!(id.to_string(), "01900000-0001-7400-8000-00050a000007");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "x",
            "01900000-0001-4400-8000-00050a000007",  // version 4
            "01900000-0001-7400-c000-00050a000007",  // another variant
            "01900000-0001-7c00-8000-00050a000007",  // the bit that is always zero
            "01900000-0001-7400-8000-00050a0000070", // too long
            "01900000a0001-7400-8000-00050a000007",
            "+1900000-0001-7400-8000-00050a000007",
        ] {
            assert_eq!(text.parse::<MessageId>(), Err(NotAnId), "{text}");
        }
    }
}
