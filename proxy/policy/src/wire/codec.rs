//! codec: messages in buffers that fit them.
//!
//! A stream keeps two buffers for as long as it lives, and a controller has thousands of streams on
//! which mostly nothing moves. tonic's own begin with 8 KiB each; these begin small and grow with what
//! is sent.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec as Codes};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes a stream's buffer begins with: an acknowledgement has about a hundred.
const BUFFER_BYTES: usize = 256;
/// Messages that wait together are written out at this many bytes (tonic's own value).
const YIELD_BYTES: usize = 32 * 1024;

/// Reads `U` and writes `T`.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codes for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
