//! The first two of the three stages in which a burst meets the table: what a packet is, and where its connection
//! may be. Both only ask the cache for lines; the third stage, which reads them, decides.

use weir_wire::extract::{ChecksumTrust, Extracted};
use weir_wire::header::{Ipv4, Ipv6, Tcp};
use weir_wire::{Invalid, Layers, Tuple, Tuple4, checksum};

use crate::meta::{ConnectionRef, CtMeta};
use crate::shard::Shard;
use crate::state::CtState;
use crate::table::bucket::Slot;
use crate::translation::DraftNumber;

/// A packet on its way to [`Shard::execute`].
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    pub(crate) target: Target,
    /// Of the tuple to look up.
    pub(crate) hash: u64,
    pub(crate) candidate: Option<Slot>,
    /// What was kept beside the candidate's entry.
    hint: u16,
    zone: u16,
    new_connection: Option<u64>,
    /// What its connection's reply tuple may be, if it is the first of one.
    pub(crate) draft: DraftNumber,
}

/// What is to be looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Nothing: the packet's connection is known.
    Known(ConnectionRef),
    /// The packet's own tuple.
    Packet(Tuple),
    /// The tuple of the direction that an ICMP error travels in.
    Related { tuple: Tuple, inner_layers: Layers },
    /// The tuple of a TCP segment with flags that no stack sends: invalid, and yet its connection's.
    Impossible { tuple: Tuple, cause: Invalid },
    /// Nothing: the packet is invalid.
    Invalid(Invalid),
}

impl Target {
    /// What a frame is.
    #[inline]
    pub(crate) fn of(frame: &[u8], layers: &Layers, zone: u16, trust: ChecksumTrust) -> Self {
        match Tuple::extract(frame, layers, zone, trust) {
            Ok(Extracted::Packet(tuple)) => Self::Packet(tuple),
            Ok(Extracted::IcmpError { inner, inner_layers }) => {
                Self::Related { tuple: inner.reversed(), inner_layers }
            }
            Err(cause) => match impossible_segment(frame, layers, zone, trust, cause) {
                Some(tuple) => Self::Impossible { tuple, cause },
                None => Self::Invalid(cause),
            },
        }
    }

    /// The tuple to look up.
    #[inline]
    pub(crate) const fn tuple(&self) -> Option<&Tuple> {
        match self {
            Self::Packet(tuple) | Self::Related { tuple, .. } | Self::Impossible { tuple, .. } => Some(tuple),
            Self::Known(_) | Self::Invalid(_) => None,
        }
    }
}

/// The tuple of a segment that is refused for its flags alone. A flow table may let invalid packets pass; then
/// not even this one may show a private address.
#[cold]
fn impossible_segment(
    frame: &[u8],
    layers: &Layers,
    zone: u16,
    trust: ChecksumTrust,
    cause: Invalid,
) -> Option<Tuple> {
    let is_candidate = matches!(cause, Invalid::TcpSynFinRst | Invalid::TcpNoFlags | Invalid::TcpNoAck);
    if !is_candidate || !(trust.l4 || checksum::l4_is_valid(frame, layers)) {
        return None;
    }
    let packet = layers.l3_bytes(frame);
    let (src, dst) = if layers.is_ipv6() {
        let ip = Ipv6::new_checked(packet).ok()?;
        (ip.src().into(), ip.dst().into())
    } else {
        let ip = Ipv4::new_checked(packet).ok()?;
        (ip.src().into(), ip.dst().into())
    };
    let tcp = Tcp::new_checked(layers.l4_bytes(frame)).ok()?;
    if tcp.src_port() == 0 || tcp.dst_port() == 0 {
        return None;
    }
    Tuple::new(src, dst, tcp.src_port(), tcp.dst_port(), layers.protocol, zone)
}

impl Lookup {
    /// After stage 1.
    #[inline(always)]
    pub(crate) const fn of(target: Target, hash: u64, zone: u16) -> Self {
        let draft = DraftNumber::NONE;
        Self { target, hash, candidate: None, hint: 0, zone, new_connection: None, draft }
    }

    /// A hash that both directions of a connection share, if the packet may be the first of one: it has a tuple of
    /// its own, and stage 2 found no sign of it in the table. Two packets of a burst with the same value have to be
    /// worked in order. (A connection that has just expired still shows; sweep before the burst.)
    #[inline]
    #[must_use]
    pub const fn new_connection_hash(&self) -> Option<u64> {
        self.new_connection
    }

    /// True after stage 2 of a packet with a tuple of its own.
    #[inline]
    #[must_use]
    pub const fn is_through_index(&self) -> bool {
        self.candidate.is_some() || self.new_connection.is_some()
    }

    /// What the caller has kept with the connection that this packet seems to belong to, for its direction
    /// ([`Shard::remember`]); 0 if nothing, or if there is none. After stage 2.
    ///
    /// The table has compared 16 bits of the tuple's hash so far, so it may be another connection's.
    #[inline]
    #[must_use]
    pub const fn hint(&self) -> u16 {
        self.hint
    }

    /// True if it looks into this zone.
    #[inline]
    #[must_use]
    pub const fn is_for(&self, zone: u16) -> bool {
        self.zone == zone
    }

    /// Why the packet is invalid whatever connections there are, if it is.
    #[must_use]
    pub const fn invalid(&self) -> Option<Invalid> {
        match self.target {
            Target::Invalid(cause) | Target::Impossible { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl Shard {
    /// As [`Lookup::new_connection_hash`], of any packet that has a tuple, whatever the table holds.
    #[must_use]
    pub fn connection_hash(&self, lookup: &Lookup) -> Option<u64> {
        let reversed = |tuple: &Tuple| lookup.hash.wrapping_add(self.table.hash(&tuple.reversed()));
        lookup.new_connection.or_else(|| lookup.target.tuple().map(reversed))
    }

    /// Keeps `hint`, below [`HINTS`](crate::HINTS), with the connection that this look-up has found, for its direction.
    /// It is 0 for a new connection and gone with it.
    pub fn remember(&mut self, lookup: &Lookup, connection: ConnectionRef, hint: u16) {
        if lookup.hint != hint && matches!(lookup.target, Target::Packet(_)) {
            self.table.set_hint(lookup.hash, connection.slot, hint);
        }
    }

    /// Stage 1: extracts and validates the tuple, hashes it and asks for the index bucket. A packet whose `meta`
    /// names its connection in this zone already needs no look-up. `layers` must be the parse of `frame`.
    #[inline]
    #[must_use]
    pub fn prepare(
        &self,
        frame: &[u8],
        layers: &Layers,
        zone: u16,
        meta: &CtMeta,
        checksum_trusted: bool,
    ) -> Lookup {
        let mut lookup = None;
        self.prepare_into(&mut lookup, frame, layers, zone, meta, checksum_trusted);
        lookup.unwrap_or(Lookup::of(Target::Invalid(Invalid::NotIp), 0, zone))
    }

    /// [`Shard::prepare`] in the place where the result is to stay: to copy what has just been written in pieces takes
    /// some twenty cycles a piece.
    #[inline(always)]
    pub fn prepare_into(
        &self,
        place: &mut Option<Lookup>,
        frame: &[u8],
        layers: &Layers,
        zone: u16,
        meta: &CtMeta,
        checksum_trusted: bool,
    ) {
        let trust = if checksum_trusted { ChecksumTrust::ALL } else { ChecksumTrust::NONE };
        if !meta.state.has(CtState::TRK)
            && let Some(Ok(tuple)) = Tuple4::extract_plain(frame, layers, zone, trust)
        {
            // Hashed before it is put away: words that have just been stored in pieces are slow to come back.
            let hash = self.table.hash4(&tuple);
            self.table.prefetch_bucket(hash);
            *place = Some(Lookup::of(Target::Packet(Tuple::V4(tuple)), hash, zone));
            return;
        }
        self.prepare_any(place, frame, layers, zone, meta, trust);
    }

    #[inline(never)]
    fn prepare_any(
        &self,
        place: &mut Option<Lookup>,
        frame: &[u8],
        layers: &Layers,
        zone: u16,
        meta: &CtMeta,
        trust: ChecksumTrust,
    ) {
        // What an earlier ct action of this zone took for valid was verified then; what may have been set since was set
        // with its checksums.
        let is_verified = meta.is_tracked_in(zone) && !meta.state.has(CtState::INV);
        let trust = if is_verified { ChecksumTrust::ALL } else { trust };
        let target = match meta.connection_in(zone) {
            Some(connection) => Target::Known(connection),
            None => Target::of(frame, layers, zone, trust),
        };
        let mut hash = 0;
        if let Some(tuple) = target.tuple() {
            hash = self.table.hash(tuple);
            self.table.prefetch_bucket(hash);
        }
        *place = Some(Lookup::of(target, hash, zone));
    }

    /// Stage 2: compares the bucket's tags and asks for the lines of the connection that they point to.
    #[inline]
    pub fn prefetch(&self, lookup: &mut Lookup) {
        self.prefetch_connection(lookup);
        self.prefetch_account(lookup);
    }

    /// Stage 2 without the line that the connection is accounted in, for whoever asks for that later
    /// ([`Shard::prefetch_account`]): a CPU waits for so many lines at a time and no more, some tens, and a burst would ask
    /// for two a packet at once.
    #[inline(always)]
    pub fn prefetch_connection(&self, lookup: &mut Lookup) {
        let Some(tuple) = lookup.target.tuple() else {
            if let Target::Known(connection) = lookup.target {
                self.table.prefetch_connection(connection.slot, false);
                lookup.candidate = Some(connection.slot);
            }
            return;
        };
        if let Some((slot, hint)) = self.table.candidate(lookup.hash) {
            (lookup.candidate, lookup.hint) = (Some(slot), hint);
            self.table.prefetch_connection(slot, matches!(tuple, Tuple::V6(_)));
        } else if matches!(lookup.target, Target::Packet(_)) {
            let reversed = self.table.hash(&tuple.reversed());
            lookup.new_connection = Some(lookup.hash.wrapping_add(reversed));
        }
    }

    /// The rest of stage 2.
    #[inline(always)]
    pub fn prefetch_account(&self, lookup: &Lookup) {
        if let (Some(slot), Some(tuple)) = (lookup.candidate, lookup.target.tuple()) {
            self.table.prefetch_account(slot, tuple.protocol());
        }
    }
}
