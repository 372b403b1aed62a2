//! pcapng (draft-ietf-opsawg-pcapng): sections, interfaces, and the three kinds of packet blocks. All other
//! blocks are skipped.

use std::io::Read;

use super::reader::{Endian, Source};
use super::{CaptureError, Captured, ETHERNET, MAX_CAPTURED, Precision};

/// Interfaces remembered for a section; one costs 32 bytes.
const MAX_INTERFACES: usize = 65_536;
/// Longest block that is read rather than skipped: a full packet, its fields and ample options.
const MAX_BLOCK: u32 = MAX_CAPTURED + 65_536;

mod block {
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const OBSOLETE_PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const ENHANCED_PACKET: u32 = 6;
    /// The same in both byte orders.
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
}

#[derive(Debug)]
pub(super) struct Ng {
    endian: Endian,
    pub(super) precision: Precision,
    interfaces: Vec<Interface>,
    /// The block being read, without its type and lengths.
    body: Vec<u8>,
    /// Time of the last packet that had one; simple packets have none.
    last_time_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u16,
    /// 0 means unlimited.
    snap_len: u32,
    unit: Unit,
    /// Added to timestamps, in seconds.
    offset: i64,
}

/// What a tick of an interface's timestamps is, in seconds.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// 10^-n
    Decimal(u32),
    /// 2^-n
    Binary(u32),
}

impl Ng {
    /// Reads the first section header behind its type; `None` if that is another format's magic number.
    pub(super) fn new<R: Read>(magic: &[u8], source: &mut Source<R>) -> Result<Option<Self>, CaptureError> {
        if magic != block::SECTION.to_be_bytes() {
            return Ok(None);
        }
        let mut ng = Self {
            endian: Endian::Little,
            precision: Precision::Micro,
            interfaces: Vec::new(),
            body: Vec::new(),
            last_time_ns: 0,
        };
        ng.section(source)?;
        Ok(Some(ng))
    }

    pub(super) fn read_into<R: Read>(
        &mut self,
        source: &mut Source<R>,
        packet: &mut Captured,
    ) -> Result<bool, CaptureError> {
        loop {
            source.begin();
            let Some(kind) = source.array_or_end::<4>()? else { return Ok(false) };
            let kind = self.endian.u32(kind);
            match kind {
                block::SECTION => self.section(source)?,
                block::INTERFACE => {
                    self.read_body(source)?;
                    self.interface(source)?;
                }
                block::ENHANCED_PACKET | block::OBSOLETE_PACKET | block::SIMPLE_PACKET => {
                    self.read_body(source)?;
                    self.packet(kind, source, packet)?;
                    return Ok(true);
                }
                _ => self.skip_body(source)?,
            }
        }
    }

    /// A section header: a new byte order, and interfaces count from 0 again.
    fn section<R: Read>(&mut self, source: &mut Source<R>) -> Result<(), CaptureError> {
        let [l0, l1, l2, l3, m0, m1, m2, m3] = source.array::<8>()?;
        self.endian = match [m0, m1, m2, m3] {
            [0x1a, 0x2b, 0x3c, 0x4d] => Endian::Big,
            [0x4d, 0x3c, 0x2b, 0x1a] => Endian::Little,
            _ => return Err(source.malformed("the section header has no byte-order magic")),
        };
        let len = self.endian.u32([l0, l1, l2, l3]);
        if len < 28 || !len.is_multiple_of(4) {
            return Err(source.malformed("the section header's length is below 28 or no multiple of 4"));
        }
        let [v0, v1, ..] = source.array::<4>()?;
        if self.endian.u16([v0, v1]) != 1 {
            return Err(source.malformed("the section's major version is not 1"));
        }
        self.interfaces.clear();
        source.skip(u64::from(len) - 20)?;
        self.check_trailer(len, source)
    }

    /// The length of a block behind its type, checked; gives the length of its body.
    fn body_len<R: Read>(&self, source: &mut Source<R>) -> Result<u32, CaptureError> {
        let len = self.endian.u32(source.array::<4>()?);
        if len < 12 || !len.is_multiple_of(4) {
            return Err(source.malformed("a block's length is below 12 or no multiple of 4"));
        }
        Ok(len - 12)
    }

    fn read_body<R: Read>(&mut self, source: &mut Source<R>) -> Result<(), CaptureError> {
        let len = self.body_len(source)?;
        if len > MAX_BLOCK {
            return Err(source.malformed("a packet or interface block is longer than any packet"));
        }
        source.exactly(len, &mut self.body)?;
        self.check_trailer(len + 12, source)
    }

    fn skip_body<R: Read>(&self, source: &mut Source<R>) -> Result<(), CaptureError> {
        let len = self.body_len(source)?;
        source.skip(u64::from(len))?;
        self.check_trailer(len + 12, source)
    }

    fn check_trailer<R: Read>(&self, len: u32, source: &mut Source<R>) -> Result<(), CaptureError> {
        if self.endian.u32(source.array::<4>()?) != len {
            return Err(source.malformed("the lengths at the two ends of a block differ"));
        }
        Ok(())
    }

    fn interface<R: Read>(&mut self, source: &Source<R>) -> Result<(), CaptureError> {
        let Some((&[t0, t1, _, _, s0, s1, s2, s3], mut options)) = self.body.split_first_chunk::<8>() else {
            return Err(source.malformed("an interface description is shorter than 8 bytes"));
        };
        let mut interface = Interface {
            link_type: self.endian.u16([t0, t1]),
            snap_len: self.endian.u32([s0, s1, s2, s3]),
            unit: Unit::Decimal(6),
            offset: 0,
        };
        while let Some((&[c0, c1, l0, l1], rest)) = options.split_first_chunk::<4>() {
            let (code, len) = (self.endian.u16([c0, c1]), usize::from(self.endian.u16([l0, l1])));
            let Some(value) = rest.get(..len) else {
                return Err(source.malformed("an option of an interface description is cut"));
            };
            match (code, value) {
                // opt_endofopt
                (0, _) => break,
                // if_tsresol
                (9, [unit]) if unit & 0x80 != 0 => interface.unit = Unit::Binary(u32::from(unit & 0x7f)),
                (9, [unit]) => interface.unit = Unit::Decimal(u32::from(*unit)),
                // if_tsoffset
                (14, &[a, b, c, d, e, f, g, h]) => {
                    interface.offset = match self.endian {
                        Endian::Big => i64::from_be_bytes([a, b, c, d, e, f, g, h]),
                        Endian::Little => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                    };
                }
                _ => {}
            }
            options = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(source.malformed("the section has more than 65536 interfaces"));
        }
        // 2^-20 s is just below a microsecond.
        if matches!(interface.unit, Unit::Decimal(7..) | Unit::Binary(20..)) {
            self.precision = Precision::Nano;
        }
        self.interfaces.push(interface);
        Ok(())
    }

    fn packet<R: Read>(
        &mut self,
        kind: u32,
        source: &Source<R>,
        packet: &mut Captured,
    ) -> Result<(), CaptureError> {
        let cut = || source.malformed("a packet block is shorter than its fields or its packet");
        let (interface_id, ticks, captured_len, original_len, data);
        if kind == block::SIMPLE_PACKET {
            let (length, rest) = self.body.split_first_chunk::<4>().ok_or_else(cut)?;
            original_len = self.endian.u32(*length);
            let snap_len = self.interfaces.first().map_or(0, |interface| interface.snap_len);
            let limit = if snap_len == 0 { u32::MAX } else { snap_len };
            (interface_id, ticks, captured_len, data) = (0, None, original_len.min(limit), rest);
        } else {
            let (fields, rest) = self.body.split_first_chunk::<20>().ok_or_else(cut)?;
            let [i0, i1, i2, i3, h0, h1, h2, h3, w0, w1, w2, w3, c0, c1, c2, c3, o0, o1, o2, o3] = *fields;
            interface_id = if kind == block::OBSOLETE_PACKET {
                u32::from(self.endian.u16([i0, i1]))
            } else {
                self.endian.u32([i0, i1, i2, i3])
            };
            let (high, low) = (self.endian.u32([h0, h1, h2, h3]), self.endian.u32([w0, w1, w2, w3]));
            ticks = Some(u64::from(high) << 32 | u64::from(low));
            captured_len = self.endian.u32([c0, c1, c2, c3]);
            original_len = self.endian.u32([o0, o1, o2, o3]);
            data = rest;
        }
        source.check_len(captured_len)?;
        let data = usize::try_from(captured_len).ok().and_then(|len| data.get(..len)).ok_or_else(cut)?;
        let interface = usize::try_from(interface_id).ok().and_then(|id| self.interfaces.get(id));
        let interface =
            interface.ok_or_else(|| source.malformed("a packet of an interface that was not described"))?;
        if interface.link_type != ETHERNET {
            return Err(source.link_type(interface.link_type));
        }
        if let Some(ticks) = ticks {
            self.last_time_ns = interface
                .nanoseconds(ticks)
                .ok_or_else(|| source.malformed("a packet's time is before 1970 or after 2554"))?;
        }
        packet.time_ns = self.last_time_ns;
        packet.original_len = original_len;
        packet.data.clear();
        packet.data.extend_from_slice(data);
        Ok(())
    }
}

impl Interface {
    /// Ticks as nanoseconds since 1970; `None` if that is no `u64`.
    fn nanoseconds(&self, ticks: u64) -> Option<u64> {
        let ticks = i128::from(ticks);
        let nanoseconds = match self.unit {
            Unit::Decimal(digits @ 0..=9) => ticks * 10i128.pow(9 - digits),
            // Finer than 10^-38 s: not even 2^64 ticks make a nanosecond.
            Unit::Decimal(digits) => 10i128.checked_pow(digits - 9).map_or(0, |unit| ticks / unit),
            Unit::Binary(bits) => (ticks * 1_000_000_000) >> bits,
        };
        u64::try_from(nanoseconds + i128::from(self.offset) * 1_000_000_000).ok()
    }
}
