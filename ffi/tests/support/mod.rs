//! What the tests with real devices share: one EAL a process, captures, packets.
#![allow(dead_code, clippy::expect_used)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use weir_ffi::{Burst, Eal, EalConfig, Pool, RxQueue, TxQueue};

/// EAL, started by whichever test of the process comes first.
pub(crate) fn eal() -> &'static Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    EAL.get_or_init(|| Eal::init(EalConfig::lab(128)).expect("EAL starts without root and hugepages"))
}

pub(crate) fn pool(mbufs: u32) -> Pool {
    Pool::new(eal(), &Pool::unique_name("test"), mbufs, 0, 2048, None).expect("a pool")
}

/// A number no other test of this process has, for device names.
pub(crate) fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A directory that goes with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("weir-ffi-{}-{}", std::process::id(), number()));
        std::fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An Ethernet frame of `length` bytes whose content is derived from `seed`.
pub(crate) fn frame(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    bytes.extend((bytes.len()..length).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)));
    bytes
}

/// The frame with a VLAN tag.
pub(crate) fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend([0x81, 0x00]);
    bytes.extend(vlan.to_be_bytes());
    bytes.extend(&frame[12..]);
    bytes
}

pub(crate) fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let mut writer = PcapWriter::new(File::create(path).expect("a file")).expect("a capture");
    for (index, frame) in frames.iter().enumerate() {
        let time = Duration::from_micros(index as u64);
        writer.write_packet(&PcapPacket::new(time, frame.len() as u32, frame)).expect("written");
    }
}

pub(crate) fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).expect("a file")).expect("a capture");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.expect("a packet").data.into_owned());
    }
    frames
}

/// Receives until `count` frames that `wanted` accepts have come, or for three seconds; the queue is asked, not slept on.
pub(crate) fn receive(rx: &mut RxQueue, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut frames = Vec::new();
    let mut burst = Burst::new();
    while frames.len() < count && Instant::now() < deadline {
        if rx.rx_burst(&mut burst) == 0 {
            std::thread::yield_now();
        }
        frames.extend(burst.drain().map(|packet| packet.bytes().to_vec()).filter(|bytes| wanted(bytes)));
    }
    frames
}

/// Sends frames, as many bursts as it takes.
pub(crate) fn send(tx: &mut TxQueue, pool: &Pool, frames: &[Vec<u8>]) {
    let mut burst = Burst::new();
    for chunk in frames.chunks(weir_ffi::BURST) {
        for frame in chunk {
            burst.push(pool.packet(frame).expect("a packet")).expect("room");
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while !burst.is_empty() && Instant::now() < deadline {
            tx.tx_burst(&mut burst);
        }
        assert!(burst.is_empty(), "the device takes what it is given");
    }
}
