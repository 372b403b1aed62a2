//! TCP as OpenBSD's pf tracks it ("keep state" in pf.conf(5); van Rooij, SANE 2000), rule after rule, in whole
//! numbers: a sequence number is only ever asked how far it lies from another one.

use weir_shard::{TcpState, Timeout, WindowScale};

use crate::packet::{ACK, FIN, RST, SYN, Segment};

/// "Not more than one reassembled fragment": the largest window without a scale, and an Ethernet frame.
const FRAGMENT: i64 = 0xffff + 1500;
/// The largest scale (RFC 7323 section 2.3).
const MAX_SCALE: u8 = 14;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side {
    pub state: TcpState,
    /// pf's seqlo: behind the last byte that this side has sent.
    pub sent: u32,
    /// pf's seqhi: behind the last byte that the other side is ready for. `None`: nothing was heard of this side,
    /// nor of the other one what it is ready for.
    pub allowed: Option<u32>,
    /// The largest window that this side has announced, without its scale.
    pub window: u32,
    pub scale: WindowScale,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    Established,
    New,
    Invalid,
    /// It opens another connection with the same tuple.
    StartsAnew,
}

/// How far `a` lies behind `b`; negative if in front of it (RFC 9293 section 3.4).
pub fn distance(a: u32, b: u32) -> i64 {
    let ahead = i64::from(a.wrapping_sub(b));
    if ahead < 1 << 31 { ahead } else { ahead - (1 << 32) }
}

/// The number behind a segment; SYN and FIN count one each.
pub fn end_of(segment: &Segment) -> u32 {
    let mut end = segment.seq.wrapping_add(u32::try_from(segment.payload).unwrap());
    for flag in [SYN, FIN] {
        if segment.has(flag) {
            end = end.wrapping_add(1);
        }
    }
    end
}

fn offered_scale(segment: &Segment) -> WindowScale {
    segment.scale.map_or(WindowScale::None, |scale| WindowScale::Offered(scale.min(MAX_SCALE)))
}

/// A SYN's window is never scaled; it is kept in the unit of later ones, rounded up.
fn window_of_syn(segment: &Segment) -> u32 {
    match offered_scale(segment) {
        WindowScale::Offered(scale) => u32::from(segment.window).div_ceil(1 << scale),
        _ => u32::from(segment.window),
    }
}

/// Both sides after a connection's first segment, which any but a SYN+ACK may be.
pub fn first(segment: &Segment) -> Option<[Side; 2]> {
    if segment.has(SYN | ACK) {
        return None;
    }
    let scale = if segment.has(SYN) { offered_scale(segment) } else { WindowScale::Unknown };
    let window =
        if segment.has(SYN) { window_of_syn(segment).max(1) } else { u32::from(segment.window).max(1) };
    let source = Side {
        state: TcpState::SynSent,
        sent: segment.seq,
        // The other side's window is not known: one byte.
        allowed: Some(end_of(segment).wrapping_add(1)),
        window,
        scale,
    };
    let destination = Side {
        state: TcpState::Closed,
        sent: 0,
        allowed: None,
        window: 1,
        // Whether it scales is only seen in its SYN; without the handshake that will not come.
        scale: if segment.has(SYN) { WindowScale::None } else { WindowScale::Unknown },
    };
    Some([source, destination])
}

/// What a segment from side `from` is, and what it changes. A timeout is given if the connection lives on by it.
pub fn next(
    sides: &mut [Side; 2],
    from: usize,
    segment: &Segment,
    liberal: bool,
) -> (Judgement, Option<Timeout>) {
    let [mut src, mut dst] = [sides[from], sides[1 - from]];
    let judged = judge(&mut src, &mut dst, segment, liberal);
    sides[from] = src;
    sides[1 - from] = dst;
    judged
}

fn judge(src: &mut Side, dst: &mut Side, segment: &Segment, liberal: bool) -> (Judgement, Option<Timeout>) {
    let is_syn = segment.has(SYN) && !segment.has(ACK);
    if is_syn && src.state >= TcpState::FinWait2 && dst.state >= TcpState::FinWait2 {
        return (Judgement::StartsAnew, None);
    }
    if is_syn && src.state == TcpState::Closed {
        // Simultaneous open (RFC 9293 section 3.5).
        speak_first(src, dst, segment, (0, 0));
        return (Judgement::New, Some(Timeout::TcpSynSent));
    }
    if is_syn && src.state == TcpState::SynSent {
        // A retransmitted SYN is still new.
        return (Judgement::New, Some(Timeout::TcpSynSent));
    }

    // By how much each side's windows are scaled: not in a SYN, and only if both agreed to it.
    let (mut src_scale, mut dst_scale) = match (src.scale, dst.scale) {
        _ if segment.has(SYN) => (0, 0),
        (WindowScale::Offered(src), WindowScale::Offered(dst)) => (src, dst),
        (WindowScale::Unknown, WindowScale::Unknown) => (MAX_SCALE, MAX_SCALE),
        _ => (0, 0),
    };
    let mut window = u32::from(segment.window);
    let mut opens = false;
    if src.state == TcpState::Closed {
        let said = speak_first(src, dst, segment, (src_scale, dst_scale));
        (window, opens) = (said.window, said.opens);
        (src_scale, dst_scale) = said.scales;
    }

    // Without ACK, or in a RST of a stack that leaves the field 0, nothing is acknowledged.
    let acknowledges = segment.has(ACK) && !(segment.ack == 0 && segment.has(RST));
    let ack = if acknowledges { segment.ack } else { dst.sent };
    // What takes no sequence numbers is not held to any.
    let (seq, end) = match end_of(segment) {
        end if end == segment.seq => (src.sent, src.sent),
        end => (segment.seq, end),
    };
    let behind = if opens { 0 } else { distance(dst.sent, ack) };
    let allowed = src.allowed.unwrap_or(1);
    let window_back = i64::from(dst.window) << dst_scale;

    let fits = distance(allowed, end) >= 0
        // A repeat of not more than a window.
        && distance(seq, src.sent.wrapping_sub(u32::try_from(window_back).unwrap())) >= 0
        && behind >= -FRAGMENT
        && behind <= FRAGMENT << src_scale
        // "RST only at the expected sequence number +-1".
        && (!segment.has(RST) || distance(segment.seq, src.sent).abs() <= 1);
    // pf is loose while a side has not spoken and when one is through.
    let is_settled =
        dst.state >= TcpState::SynSent && dst.state < TcpState::FinWait2 && src.state < TcpState::FinWait2;
    let nearly_fits = !is_settled
        && distance(allowed.wrapping_add(u32::try_from(FRAGMENT).unwrap()), end) >= 0
        && distance(seq, src.sent.wrapping_sub(u32::try_from(FRAGMENT).unwrap())) >= 0;
    if !(liberal || fits || nearly_fits) {
        return (Judgement::Invalid, None);
    }

    src.window = src.window.max(window);
    if distance(end, src.sent) > 0 {
        src.sent = end;
    }
    let ready_for = ack.wrapping_add(window << src_scale);
    if distance(ready_for, dst.allowed.unwrap_or(1)) >= 0 {
        dst.allowed = Some(ack.wrapping_add((window << src_scale).max(1)));
    }

    if segment.has(FIN) && src.state < TcpState::Closing {
        src.state = TcpState::Closing;
    }
    if liberal || fits {
        if segment.has(ACK) {
            match dst.state {
                TcpState::SynSent => dst.state = TcpState::Established,
                TcpState::Closing => dst.state = TcpState::FinWait2,
                _ => {}
            }
        }
        if segment.has(RST) {
            (src.state, dst.state) = (TcpState::TimeWait, TcpState::TimeWait);
        }
        return (Judgement::Established, Some(timeout(src.state, dst.state)));
    }
    if segment.has(RST) {
        (src.state, dst.state) = (TcpState::TimeWait, TcpState::TimeWait);
    }
    // The deadline stays.
    (Judgement::Established, None)
}

/// What a side's first segment settles.
struct Said {
    /// Its window in the unit of later ones.
    window: u32,
    /// It says what the side is allowed to send.
    opens: bool,
    /// Of source and destination.
    scales: (u8, u8),
}

/// A side's first segment: its numbers become known, and its scale in a SYN that answers one.
fn speak_first(src: &mut Side, dst: &mut Side, segment: &Segment, mut scales: (u8, u8)) -> Said {
    let mut window = u32::from(segment.window);
    if let (true, WindowScale::Offered(theirs)) = (segment.has(SYN), dst.scale) {
        src.scale = offered_scale(segment);
        if let WindowScale::Offered(own) = src.scale {
            window = window_of_syn(segment);
            scales = (own, theirs);
        } else {
            // Then none of them scales, and the other's window is in bytes after all.
            dst.window = (dst.window << theirs).min(0xffff);
            dst.scale = WindowScale::None;
        }
    }
    src.sent = segment.seq;
    src.state = TcpState::SynSent;
    let allowed = end_of(segment).wrapping_add((dst.window << scales.1).max(1));
    let opens = src.allowed.is_none_or(|before| before == 1 || distance(allowed, before) >= 0);
    if opens {
        src.allowed = Some(allowed);
    }
    src.window = src.window.max(window);
    Said { window, opens, scales }
}

/// The page's timeouts: tcp_syn_recv while a side was not acknowledged; tcp_established; tcp_fin_wait "one side sent
/// FIN"; tcp_time_wait "both"; tcp_close "RST or both done".
fn timeout(a: TcpState, b: TcpState) -> Timeout {
    let both = |state: TcpState| a >= state && b >= state;
    let one = |state: TcpState| a >= state || b >= state;
    if both(TcpState::FinWait2) {
        Timeout::TcpClose
    } else if both(TcpState::Closing) {
        Timeout::TcpTimeWait
    } else if !both(TcpState::Established) {
        Timeout::TcpSynRecv
    } else if one(TcpState::Closing) {
        Timeout::TcpFinWait
    } else {
        Timeout::TcpEstablished
    }
}
