use super::*;
use proptest::prelude::*;

fn written(precision: Precision, packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut writer = CaptureWriter::new(Vec::new(), precision).unwrap();
    for (time_ns, data) in packets {
        writer.write(*time_ns, data).unwrap();
    }
    writer.finish().unwrap()
}

fn read(file: &[u8]) -> Result<Vec<Captured>, CaptureError> {
    CaptureReader::new(file)?.collect()
}

/// Byte order as a function, to build pcapng of both.
type Order = fn(u32) -> [u8; 4];

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = order(u32::try_from(body.len()).unwrap() + 12);
    [&order(kind)[..], &len, &body, &len].concat()
}

fn half(order: Order, value: u16) -> Vec<u8> {
    let whole = order(u32::from(value));
    if whole[0] == 0 && whole[1] == 0 { whole[2..].to_vec() } else { whole[..2].to_vec() }
}

fn section(order: Order) -> Vec<u8> {
    let version = if order(1)[3] == 1 { [0, 1, 0, 0] } else { [1, 0, 0, 0] };
    block(order, 0x0a0d_0d0a, &[&order(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat())
}

fn interface(order: Order, link_type: u16, options: &[u8]) -> Vec<u8> {
    let link = if order(1)[3] == 1 { link_type.to_be_bytes() } else { link_type.to_le_bytes() };
    block(order, 1, &[&link[..], &[0, 0], &order(0), options].concat())
}

fn enhanced(order: Order, interface: u32, ticks: u64, data: &[u8]) -> Vec<u8> {
    let len = order(u32::try_from(data.len()).unwrap());
    let (high, low) = ((ticks >> 32) as u32, ticks as u32);
    block(order, 6, &[&order(interface)[..], &order(high), &order(low), &len, &len, data].concat())
}

#[test]
fn what_is_written_is_read_back() {
    let packets = [
        (1_500_000_000_123_456_000, vec![1; 60]),
        (0, vec![]),
        (u64::from(u32::MAX) * 1_000_000_000, vec![2; 1514]),
    ];
    for precision in [Precision::Micro, Precision::Nano] {
        let file = written(precision, &packets);
        let reader = CaptureReader::new(&file[..]).unwrap();
        assert_eq!(reader.precision(), precision);
        let back: Vec<_> =
            reader.map(|packet| packet.map(|packet| (packet.time_ns, packet.data)).unwrap()).collect();
        assert_eq!(back, packets);
    }
}

#[test]
fn nanoseconds_are_cut_to_the_files_precision() {
    let file = written(Precision::Micro, &[(1_999, vec![0; 14])]);
    assert_eq!(read(&file).unwrap()[0].time_ns, 1_000);
    let file = written(Precision::Nano, &[(1_999, vec![0; 14])]);
    assert_eq!(read(&file).unwrap()[0].time_ns, 1_999);
}

#[test]
fn big_endian_files_are_read() {
    let mut file =
        vec![0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 1];
    file.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 99, 7, 8, 9]);
    let packets = read(&file).unwrap();
    assert_eq!(packets, [Captured { time_ns: 1_000_002_000, original_len: 99, data: vec![7, 8, 9] }]);
}

#[test]
fn pcapng_of_both_byte_orders_is_read_with_its_time_units() {
    for order in [u32::to_be_bytes as Order, u32::to_le_bytes as Order] {
        let resolution =
            |unit: u8| [&half(order, 9)[..], &half(order, 1), &[unit, 0, 0, 0], &[0; 4]].concat();
        let file = [
            section(order),
            interface(order, 1, &[]),
            interface(order, 1, &resolution(9)),
            interface(order, 1, &resolution(0x80 | 10)),
            block(order, 0xbad, &[1, 2, 3]),
            enhanced(order, 0, 5, &[1; 15]),
            enhanced(order, 1, 5, &[2; 16]),
            enhanced(order, 2, 512, &[3; 17]),
            block(order, 3, &[&order(14)[..], &[4; 14]].concat()),
        ]
        .concat();
        let packets = read(&file).unwrap();
        let times: Vec<_> = packets.iter().map(|packet| packet.time_ns).collect();
        assert_eq!(times, [5_000, 5, 500_000_000, 500_000_000]);
        let lengths: Vec<_> = packets.iter().map(|packet| packet.data.len()).collect();
        assert_eq!(lengths, [15, 16, 17, 14]);
    }
}

#[test]
fn a_cut_file_names_the_packet_and_its_offset() {
    let file = written(Precision::Micro, &[(1, vec![1; 60]), (2, vec![2; 60])]);
    for cut in 1..76 {
        let mut reader = CaptureReader::new(&file[..file.len() - cut]).unwrap();
        assert!(reader.next().unwrap().is_ok());
        let error = reader.next().unwrap().unwrap_err();
        assert!(matches!(error, CaptureError::Truncated { packet: 2, offset: 100 }), "{error}");
        assert!(reader.next().is_none());
    }
}

#[test]
fn a_packet_longer_than_possible_is_refused_before_memory_is_taken() {
    let mut file = written(Precision::Micro, &[]);
    file.extend([0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let error = read(&file).unwrap_err();
    assert!(matches!(error, CaptureError::Oversized { packet: 1, offset: 24, len: 0xffff_ffff }), "{error}");
}

#[test]
fn other_link_types_and_other_files_are_refused() {
    let mut file = written(Precision::Micro, &[]);
    file[20] = 101;
    assert!(matches!(read(&file), Err(CaptureError::LinkType { link_type: 101, .. })));
    let order = u32::to_le_bytes as Order;
    let file = [section(order), interface(order, 113, &[]), enhanced(order, 0, 0, &[0; 14])].concat();
    assert!(matches!(read(&file), Err(CaptureError::LinkType { link_type: 113, .. })));
    assert!(matches!(read(b"#!/bin/sh"), Err(CaptureError::NotACapture { .. })));
    assert!(matches!(read(b""), Err(CaptureError::NotACapture { .. })));
}

#[test]
fn times_that_pcap_cannot_hold_are_refused() {
    let mut writer = CaptureWriter::new(Vec::new(), Precision::Nano).unwrap();
    assert!(matches!(writer.write(u64::MAX, &[0; 14]), Err(CaptureError::Time { .. })));
    assert_eq!(writer.packets(), 0);
}

#[test]
fn another_reader_agrees_with_our_writer() {
    let file = written(Precision::Nano, &[(1_000_000_007, vec![9; 60])]);
    let mut reader = pcap_file::pcap::PcapReader::new(&file[..]).unwrap();
    let packet = reader.next_packet().unwrap().unwrap();
    assert_eq!((packet.timestamp.as_nanos(), packet.data.len()), (1_000_000_007, 60));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn damaged_captures_end_in_an_error_or_packets_but_never_a_panic(
        order in any::<bool>(), ng in any::<bool>(), damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in any::<u16>(),
    ) {
        let order = if order { u32::to_be_bytes as Order } else { u32::to_le_bytes as Order };
        let mut file = if ng {
            [
                section(order),
                interface(order, 1, &[&half(order, 9)[..], &half(order, 1), &[9, 0, 0, 0]].concat()),
                enhanced(order, 0, 5, &[1; 33]),
                block(order, 3, &[&order(14)[..], &[4; 14]].concat()),
                enhanced(order, 0, 6, &[1; 60]),
            ].concat()
        } else {
            written(Precision::Micro, &[(1, vec![1; 60]), (2, vec![2; 61])])
        };
        for (at, value) in damage {
            let at = usize::from(at) % file.len();
            file[at] = value;
        }
        file.truncate(file.len() - usize::from(cut) % (file.len() / 4));
        if let Ok(reader) = CaptureReader::new(&file[..]) {
            let packets = reader.take_while(Result::is_ok).count();
            prop_assert!(packets <= file.len());
        }
    }
}
