//! Any bytes as what a client or a server says to the FTP helper, or as a TFTP request: what is announced lies inside,
//! in order, and what stands in its place announces what it is meant to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_nat::alg::ftp::{Side, announcements};
use weir_nat::alg::tftp;

fuzz_target!(|payload: &[u8]| {
    let _ = tftp::is_request(payload);
    for side in [Side::Client, Side::Server] {
        let mut end = 0;
        for found in announcements(payload, side).flatten() {
            assert!(found.range.start >= end && found.range.end <= payload.len() && found.port != 0);
            end = found.range.end;
            let Some(address) = found.address else { continue };
            let text = found.text(address, found.port).expect("its own address fits");
            let edited = [&payload[..found.range.start], text.as_bytes(), &payload[found.range.end..]].concat();
            let again = announcements(&edited, side).flatten().find(|it| it.range.start == found.range.start);
            let again = again.expect("what was announced is announced again");
            assert_eq!((again.address, again.port), (found.address, found.port));
        }
    }
});
