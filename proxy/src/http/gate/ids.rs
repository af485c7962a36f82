//! Ids of requests that came without one: random UUIDs.
//!
//! Never here: luck, which is an argument. Held by each worker; used by `trust`.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

const ID_BYTES: usize = 36;
/// Ids that share one piece of memory: few allocations, and an id that is kept for long keeps little.
const IDS_TOGETHER: usize = 16;

/// Where ids are written.
#[derive(Debug, Default)]
pub(crate) struct Ids(RefCell<BytesMut>);

impl Ids {
    /// A UUID of these random bits (version 4).
    pub(crate) fn write(&self, high: u64, low: u64) -> HeaderValue {
        let mut room = self.0.borrow_mut();
        if room.capacity() < ID_BYTES {
            *room = BytesMut::with_capacity(ID_BYTES * IDS_TOGETHER);
        }
        room.extend_from_slice(&uuid(high, low));
        let id: Bytes = room.split().freeze();
        HeaderValue::from_maybe_shared(id)
            .unwrap_or_else(|_| HeaderValue::from_static("00000000-0000-4000-8000-000000000000"))
    }
}

fn uuid(high: u64, low: u64) -> [u8; ID_BYTES] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; ID_BYTES];
    let mut nibble = 32;
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            nibble -= 1;
            *byte = HEX[usize::try_from(bits >> (nibble * 4) & 0xf).unwrap_or(0)];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        let ids = Ids::default();
        for _ in 0..IDS_TOGETHER * 2 {
            assert_eq!(ids.write(u64::MAX, 0), "ffffffff-ffff-4fff-8000-000000000000");
            assert_eq!(ids.write(0, u64::MAX), "00000000-0000-4000-bfff-ffffffffffff");
        }
    }
}
