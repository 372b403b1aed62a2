//! What is done to the bytes of a packet alone: parsing, steering, translation, checksums.

use std::hint::black_box;

use iai_callgrind::{library_benchmark, library_benchmark_group};
use weir::pipeline::BURST;
use weir_shard::Steering;
use weir_shard::steering::toeplitz::KeyWord;
use weir_wire::{Layers, Tuple};

use crate::traffic::{Kind, parsed, tuple};

type Parsed = Vec<(Vec<u8>, Layers)>;

#[library_benchmark]
#[bench::udp_ipv4(Kind::Udp4.burst())]
#[bench::tcp_ipv4(Kind::Tcp4.burst())]
#[bench::udp_ipv6(Kind::Udp6.burst())]
#[bench::tcp_ipv6(Kind::Tcp6.burst())]
fn parse(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for frame in &frames {
        black_box(Layers::parse(black_box(frame)));
    }
    frames
}

/// Four shards.
fn steering(kind: Kind) -> (Box<Steering>, Parsed) {
    (Box::new(Steering::symmetric(4, KeyWord::WELL_KNOWN)), parsed(kind.burst()))
}

#[library_benchmark]
#[bench::udp_ipv4(steering(Kind::Udp4))]
#[bench::tcp_ipv6(steering(Kind::Tcp6))]
fn steer((steering, frames): (Box<Steering>, Parsed)) -> (Box<Steering>, Parsed) {
    for (frame, layers) in &frames {
        black_box(steering.home_of_frame(black_box(frame), layers));
    }
    (steering, frames)
}

/// Packets, and what they are to become: another source.
fn translated(kind: Kind) -> Vec<(Vec<u8>, Layers, Tuple)> {
    let others = kind.burst().into_iter().rev().map(|frame| tuple(&frame));
    let pair = |((frame, layers), to)| (frame, layers, to);
    parsed(kind.burst()).into_iter().zip(others).map(pair).collect()
}

fn is_translated(packets: Vec<(Vec<u8>, Layers, Tuple)>) {
    assert!(packets.iter().all(|(frame, _, to)| tuple(frame) == *to));
}

#[library_benchmark]
#[bench::udp_ipv4(args = (Kind::Udp4), setup = translated, teardown = is_translated)]
#[bench::tcp_ipv4(args = (Kind::Tcp4), setup = translated, teardown = is_translated)]
#[bench::tcp_ipv6(args = (Kind::Tcp6), setup = translated, teardown = is_translated)]
fn rewrite(mut packets: Vec<(Vec<u8>, Layers, Tuple)>) -> Vec<(Vec<u8>, Layers, Tuple)> {
    for (frame, layers, to) in &mut packets {
        let _ = black_box(weir_nat::rewrite::translate(black_box(frame), layers, to));
    }
    packets
}

fn patterns(length: usize) -> Vec<Vec<u8>> {
    (0..BURST).map(|number| (0..length).map(|at| (at * 7 + number) as u8).collect()).collect()
}

#[library_benchmark]
#[bench::bytes_64(patterns(64))]
#[bench::bytes_1518(patterns(1518))]
fn checksum(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for frame in &frames {
        black_box(weir_wire::checksum::sum(black_box(frame)));
    }
    frames
}

library_benchmark_group!(name = frames; benchmarks = parse, steer, rewrite);
library_benchmark_group!(name = bytes; benchmarks = checksum);
