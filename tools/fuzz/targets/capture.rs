//! Any bytes as a capture file. What can be read can be written, and reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_wire::pcap::{CaptureReader, CaptureWriter, Captured};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = CaptureReader::new(bytes) else { return };
    let (mut packet, mut packets) = (Captured::default(), Vec::new());
    while let Ok(true) = reader.read_into(&mut packet) {
        packets.push(packet.data.clone());
    }
    assert!(packets.iter().map(Vec::len).sum::<usize>() <= bytes.len(), "more came out than went in");
    let Ok(mut writer) = CaptureWriter::new(Vec::new(), reader.precision()) else { return };
    for data in &packets {
        if writer.write(0, data).is_err() {
            return;
        }
    }
    let Ok(written) = writer.finish() else { return };
    let mut again = CaptureReader::new(&written[..]).expect("what was written is a capture");
    for data in &packets {
        assert!(matches!(again.read_into(&mut packet), Ok(true)));
        assert_eq!(packet.data, *data);
    }
    assert!(matches!(again.read_into(&mut packet), Ok(false)));
});
