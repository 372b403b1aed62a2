//! Any bytes as a frame: the parser and the tuple extraction take them all, and say the same with the checksums
//! trusted or not, but for the verdict on the checksums themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_wire::{ChecksumTrust, Layers, Tuple};

fuzz_target!(|frame: &[u8]| {
    let layers = Layers::parse(frame);
    let (l3, l4) = (layers.l3_bytes(frame), layers.l4_bytes(frame));
    assert!(l4.len() <= l3.len() && l3.len() <= frame.len());
    let verified = Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE);
    let trusted = Tuple::extract(frame, &layers, 0, ChecksumTrust::ALL);
    if let Ok(verified) = verified {
        assert_eq!(Ok(verified), trusted, "trust must not change what a good packet is");
        let tuple = verified.lookup();
        assert_eq!(tuple.reversed().reversed(), tuple);
    }
});
