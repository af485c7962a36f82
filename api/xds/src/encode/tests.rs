//! The laws of the codec, over random resources.
//!
//! Never here: messages of other hands (`decode`'s tests) or a real Envoy (`tests/envoy.rs`). Run by `cargo test -p api-xds`.

use api::note::Notes;
use proptest::prelude::*;

use super::*;
use crate::{decode, strategies::resource};

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(written in resource()) {
        let encoded = encode(&written, Dialect::Ours).unwrap();
        let mut notes = Notes::new();
        let read = decode(encoded.type_url, &encoded.value, &mut notes).unwrap();
        prop_assert_eq!(&read, &written);
        prop_assert_eq!(encode(&read, Dialect::Ours).unwrap().version, encoded.version);
    }

    #[test]
    fn what_is_written_for_envoys_means_the_same_to_us(written in resource()) {
        // A listener for nobody but our own proxies is nothing to an Envoy.
        let Ok(encoded) = encode(&written, Dialect::Envoy) else { return Ok(()) };
        decode(encoded.type_url, &encoded.value, &mut Notes::new()).unwrap();
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        written in resource(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let kinds = [
            crate::TYPE_URL_CLUSTER, crate::TYPE_URL_ENDPOINTS, crate::TYPE_URL_LISTENER,
            crate::TYPE_URL_ROUTES, crate::TYPE_URL_VIRTUAL_HOST, crate::TYPE_URL_SECRET,
        ];
        for kind in kinds {
            drop(decode(kind, &bytes, &mut Notes::new()));
        }
        let encoded = encode(&written, Dialect::Ours).unwrap();
        let mut bent = encoded.value.to_vec();
        if !bent.is_empty() {
            *at.get_mut(&mut bent) ^= flip;
            drop(decode(encoded.type_url, &bent, &mut Notes::new()));
        }
    }
}
