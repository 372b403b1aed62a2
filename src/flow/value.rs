//! How the values of fields are written: numbers, addresses, flags, ports, each with its mask.

use core::fmt::Write as _;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::error::{Error, Problem};
use super::field::{Field, Format, low_bits};
use super::lexer::Text;
use super::port::{self, PortNames, PortNumber};

/// Flags of `ct_state`, by bit.
pub const CT_STATE_FLAGS: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
/// Flags of `tcp_flags`, by bit.
pub const TCP_FLAGS: [&str; 12] =
    ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
/// Kinds of fragment: name, value, mask. Bit 0: any fragment, bit 1: a later one.
pub const FRAGMENTS: [(&str, u8, u8); 5] =
    [("no", 0, 3), ("yes", 1, 1), ("first", 1, 3), ("later", 3, 3), ("not_later", 0, 2)];

fn bad(what: &str, text: Text<'_>, expected: &str) -> Error {
    text.error(Problem::BadValue {
        what: what.into(),
        found: text.text.to_owned(),
        expected: expected.into(),
    })
}

/// A number, at most `max`: decimal, hexadecimal with `0x`, or octal with a leading 0. As in C, -1 is all ones where 64
/// bits are asked for.
pub(crate) fn number(what: &str, text: Text<'_>, max: u128) -> Result<u128, Error> {
    if text.text == "-1" && max == u128::from(u64::MAX) {
        return Ok(max);
    }
    let (digits, radix) = match text.text.strip_prefix("0x").or_else(|| text.text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.text.len() > 1 && text.text.starts_with('0') => (text.text, 8),
        None => (text.text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        let expected = if radix == 8 { "a number (a leading 0 means octal)" } else { "a number" };
        return Err(bad(what, text, expected));
    }
    match u128::from_str_radix(digits, radix) {
        Ok(value) if value <= max => Ok(value),
        _ => Err(text.error(Problem::TooLarge { what: what.into(), value: text.text.to_owned(), max })),
    }
}

/// A number that fits `T`.
pub(crate) fn small<T: TryFrom<u128>>(what: &str, text: Text<'_>, max: T) -> Result<T, Error>
where
    u128: From<T>,
{
    let value = number(what, text, max.into())?;
    T::try_from(value).map_err(|_| bad(what, text, "a number"))
}

pub(crate) fn mac(what: &str, text: Text<'_>) -> Result<[u8; 6], Error> {
    let mut bytes = [0; 6];
    let mut parts = text.text.split(':');
    for byte in &mut bytes {
        let part =
            parts.next().filter(|p| matches!(p.len(), 1 | 2) && p.chars().all(|c| c.is_ascii_hexdigit()));
        *byte = part
            .and_then(|part| u8::from_str_radix(part, 16).ok())
            .ok_or_else(|| bad(what, text, "an Ethernet address like 00:11:22:33:44:55"))?;
    }
    if parts.next().is_some() {
        return Err(bad(what, text, "an Ethernet address like 00:11:22:33:44:55"));
    }
    Ok(bytes)
}

pub(crate) fn mac_number(bytes: [u8; 6]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

pub(crate) fn ipv4(what: &str, text: Text<'_>) -> Result<Ipv4Addr, Error> {
    text.text.parse().map_err(|_| bad(what, text, "an IPv4 address like 10.0.0.1"))
}

pub(crate) fn ipv6(what: &str, text: Text<'_>) -> Result<Ipv6Addr, Error> {
    text.text.parse().map_err(|_| bad(what, text, "an IPv6 address like fe80::1"))
}

/// A port by number, reserved name or the name of a port of the bridge.
pub(crate) fn port(text: Text<'_>, ports: &dyn PortNames) -> Result<PortNumber, Error> {
    let unknown = || text.error(Problem::UnknownPort { name: unquote(text.text) });
    if text.text.starts_with('"') {
        return ports.number(&unquote(text.text)).ok_or_else(unknown);
    }
    if text.text.starts_with(|c: char| c.is_ascii_digit())
        && text.text.chars().all(|c| c.is_ascii_alphanumeric())
        && let Some(number) = port_number(text)
    {
        // The 32-bit notation of the reserved ports.
        let number = if number >= 0xffff_ff00 { number & 0xffff } else { number };
        let large = || Problem::TooLarge { what: "a port".into(), value: text.text.into(), max: 0xffff };
        return PortNumber::try_from(number).map_err(|_| text.error(large()));
    }
    if let Some((number, _)) = port::RESERVED.iter().find(|(_, name)| name.eq_ignore_ascii_case(text.text)) {
        return Ok(*number);
    }
    if text.text.eq_ignore_ascii_case("none") {
        return Ok(port::NONE);
    }
    ports.number(text.text).ok_or_else(unknown)
}

/// A port by number; ports are never octal.
fn port_number(text: Text<'_>) -> Option<u32> {
    match text.text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.text.parse().ok(),
    }
}

/// Takes off quotes and backslashes.
fn unquote(text: &str) -> String {
    let Some(inside) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// A port as it is printed: its name in quotes where it could be taken for something else.
#[must_use]
pub fn print_port(number: PortNumber, ports: &dyn PortNames) -> String {
    if let Some((_, name)) = port::RESERVED.iter().find(|(reserved, _)| *reserved == number) {
        return (*name).to_owned();
    }
    let Some(name) = ports.name(number) else { return number.to_string() };
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !port::RESERVED.iter().any(|(_, reserved)| reserved.eq_ignore_ascii_case(name))
        && Field::named(name).is_none();
    if plain {
        return name.to_owned();
    }
    let mut out = String::from('"');
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// `+new-est`, `new|trk` or a number.
fn flags(field: &Field, text: Text<'_>, names: &[&'static str]) -> Result<(u128, u128), Error> {
    let all = low_bits(u8::try_from(names.len()).unwrap_or(0));
    if text.text.starts_with(|c: char| c.is_ascii_digit()) {
        return masked(text, field.bits, |text| number(field.name, text, all));
    }
    let bit = |name: Text<'_>| {
        let found = names.iter().position(|known| *known == name.text);
        found.map(|bit| 1u128 << bit).ok_or_else(|| {
            let (name, known) = (name.text.to_owned(), names.join(", "));
            let what = text.slice(0, text.text.len());
            what.error(Problem::UnknownFlag { field: field.name, name, known })
        })
    };
    if text.text.starts_with(['+', '-']) {
        let (mut value, mut mask, mut from) = (0, 0, 0);
        while from < text.text.len() {
            let rest = text.text.get(from + 1..).unwrap_or_default();
            let to = rest.find(['+', '-']).map_or(text.text.len(), |at| from + 1 + at);
            let name = text.slice(from + 1, to);
            let bit = bit(name).map_err(|error| Error { span: name.span(), ..error })?;
            if mask & bit != 0 {
                return Err(name.error(Problem::Twice { key: name.text.to_owned() }));
            }
            mask |= bit;
            if text.text.as_bytes().get(from) == Some(&b'+') {
                value |= bit;
            }
            from = to;
        }
        return Ok((value, mask));
    }
    let (mut value, mut from) = (0, 0);
    for part in text.text.split('|') {
        let name = text.slice(from, from + part.len());
        value |= bit(name).map_err(|error| Error { span: name.span(), ..error })?;
        from += part.len() + 1;
    }
    Ok((value, field.bits))
}

/// `value` or `value/mask`, both read by `read`; a bare value has mask `all`.
fn masked(
    text: Text<'_>,
    all: u128,
    read: impl Fn(Text<'_>) -> Result<u128, Error>,
) -> Result<(u128, u128), Error> {
    match text.split_once("/") {
        Some((value, mask)) => Ok((read(value)?, read(mask)?)),
        None => Ok((read(text)?, all)),
    }
}

/// `address`, `address/prefix` or `address/mask`.
fn address(
    field: &Field,
    text: Text<'_>,
    read: impl Fn(Text<'_>) -> Result<u128, Error>,
) -> Result<(u128, u128), Error> {
    let Some((value, mask)) = text.split_once("/") else { return Ok((read(text)?, field.bits)) };
    let value = read(value)?;
    if !mask.text.is_empty() && mask.text.chars().all(|c| c.is_ascii_digit()) {
        let prefix = number("a prefix length", mask, field.width.into())?;
        let prefix = u8::try_from(prefix).unwrap_or(field.width);
        return Ok((value, field.bits & !low_bits(field.width - prefix)));
    }
    Ok((value, read(mask)?))
}

fn packet_type(field: &Field, text: Text<'_>) -> Result<(u128, u128), Error> {
    let inside = text.text.strip_prefix('(').and_then(|t| t.strip_suffix(')'));
    let inside = inside.and_then(|t| text.slice(1, 1 + t.len()).split_once(","));
    let (namespace, kind) = inside.ok_or_else(|| bad(field.name, text, "(NAMESPACE,TYPE)"))?;
    let namespace = number("the namespace", namespace.trim(), 0xffff)?;
    let kind = number("the type", kind.trim(), 0xffff)?;
    // Every packet here has an Ethernet header, so that matching on it says nothing.
    Ok((namespace << 16 | kind, if namespace == 0 && kind == 0 { 0 } else { field.bits }))
}

/// Reads a field's value and mask; `value & mask == value`.
pub(crate) fn parse(field: &Field, text: Text<'_>, ports: &dyn PortNames) -> Result<(u128, u128), Error> {
    if text.text == "*" {
        return Ok((0, 0));
    }
    let plain = |text: Text<'_>| number(field.name, text, field.max());
    let (value, mask) = match field.format {
        Format::Decimal | Format::Hex => masked(text, field.bits, plain)?,
        Format::Mac => masked(text, field.bits, |text| mac(field.name, text).map(mac_number))?,
        Format::Ipv4 => address(field, text, |text| ipv4(field.name, text).map(|a| u32::from(a).into()))?,
        Format::Ipv6 => address(field, text, |text| ipv6(field.name, text).map(u128::from))?,
        Format::Port => (port(text, ports)?.into(), field.bits),
        Format::CtState => flags(field, text, &CT_STATE_FLAGS)?,
        Format::TcpFlags => flags(field, text, &TCP_FLAGS)?,
        Format::Frag => {
            let found = FRAGMENTS.iter().find(|(name, ..)| *name == text.text);
            let expected = "one of no, yes, first, later, not_later";
            let (_, value, mask) = found.ok_or_else(|| bad(field.name, text, expected))?;
            ((*value).into(), (*mask).into())
        }
        Format::PacketType => packet_type(field, text)?,
    };
    if !field.maskable && mask != field.bits && mask != 0 {
        return Err(text.error(Problem::NotMaskable { field: field.name }));
    }
    Ok((value & mask, mask))
}

/// Hexadecimal, with a bare 0 for zero.
pub(crate) fn hex(value: u128) -> String {
    if value == 0 { "0".into() } else { format!("{value:#x}") }
}

pub(crate) fn mac_text(value: u128) -> String {
    let bytes = value.to_be_bytes();
    let mut out = String::with_capacity(17);
    for (i, byte) in bytes.iter().skip(10).enumerate() {
        let _ = write!(out, "{}{byte:02x}", if i == 0 { "" } else { ":" });
    }
    out
}

/// An IPv6 address as RFC 5952 writes it, those that embed an IPv4 address with its dots.
pub(crate) fn ipv6_text(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => {
            let [.., a, b, c, d] = address.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        _ => address.to_string(),
    }
}

/// Length of the prefix that `mask` is, if it is one.
fn prefix(mask: u128, width: u8) -> Option<u8> {
    let zeros = u8::try_from(mask.trailing_zeros()).unwrap_or(width).min(width);
    (mask == low_bits(width) & !low_bits(zeros)).then_some(width - zeros)
}

fn address_text(value: u128, mask: u128, width: u8, show: impl Fn(u128) -> String) -> String {
    match prefix(mask, width) {
        Some(length) if length == width => show(value),
        Some(length) => format!("{}/{length}", show(value)),
        None => format!("{}/{}", show(value), show(mask)),
    }
}

fn flags_text(value: u128, mask: u128, all: u128, names: &[&str]) -> String {
    let set = |bits: u128| names.iter().enumerate().filter(move |(bit, _)| bits >> bit & 1 == 1);
    if mask == all {
        if value == 0 {
            return "0".into();
        }
        return set(value).map(|(_, name)| *name).collect::<Vec<_>>().join("|");
    }
    set(mask).map(|(bit, name)| format!("{}{name}", if value >> bit & 1 == 1 { '+' } else { '-' })).collect()
}

/// A field's value and mask as the language writes them.
#[must_use]
pub fn print(field: &Field, value: u128, mask: u128, ports: &dyn PortNames) -> String {
    let exact = mask == field.bits;
    match field.format {
        Format::Decimal if exact => value.to_string(),
        Format::Hex if exact => hex(value),
        Format::Decimal | Format::Hex => format!("{}/{}", hex(value), hex(mask)),
        Format::Mac if exact => mac_text(value),
        Format::Mac => format!("{}/{}", mac_text(value), mac_text(mask)),
        Format::Ipv4 => {
            address_text(value, mask, 32, |v| Ipv4Addr::from(u32::try_from(v).unwrap_or(0)).to_string())
        }
        Format::Ipv6 => address_text(value, mask, 128, |v| ipv6_text(Ipv6Addr::from(v))),
        Format::Port => print_port(PortNumber::try_from(value).unwrap_or(port::NONE), ports),
        Format::CtState => flags_text(value, mask, field.bits, &CT_STATE_FLAGS),
        Format::TcpFlags => flags_text(value, mask, field.bits, &TCP_FLAGS),
        Format::Frag => {
            let found = FRAGMENTS.iter().find(|(_, v, m)| u128::from(*v) == value && u128::from(*m) == mask);
            found.map_or_else(|| format!("{}/{}", hex(value), hex(mask)), |(name, ..)| (*name).to_owned())
        }
        Format::PacketType => format!("({},{})", value >> 16, hex(value & 0xffff)),
    }
}
