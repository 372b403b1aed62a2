//! The FTP control connection: where a segment announces a data connection's address and port (RFC 959 PORT and 227,
//! RFC 2428 EPRT and 229), and what has to stand there instead behind a translation.
//!
//! Only whole lines are read, those that begin and end within one segment; a command that is cut in two goes on as
//! it is and announces nothing, which [`unfinished`] tells. All lines of a segment are read, so that pipelined commands
//! are seen as well.

use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr};
use core::ops::Range;

use super::Text;

/// Who sent the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client: PORT and EPRT.
    Client,
    /// The server: 227 and 229.
    Server,
}

/// How the address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `h1,h2,h3,h4,p1,p2`.
    Commas,
    /// `address|port` with the command's own delimiter.
    Delimited(u8),
    /// The port alone; the address is the sender's.
    Port,
}

/// Address and port at which a side waits for the data connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The bytes of the payload that name them.
    pub range: Range<usize>,
    /// The address; `None` where the form has none and the sender's own is meant (229).
    pub address: Option<IpAddr>,
    /// The port, never 0.
    pub port: u16,
    form: Form,
}

impl Announcement {
    /// The text that announces another address and port in the same form. `None` if the form cannot carry the
    /// address: PORT and 227 know IPv4 only, and an EPRT names the family in front of what is replaced.
    #[must_use]
    pub fn text(&self, address: IpAddr, port: u16) -> Option<Text> {
        let mut text = Text::new();
        let [high, low] = port.to_be_bytes();
        match (self.form, address) {
            (Form::Commas, IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                write!(text, "{a},{b},{c},{d},{high},{low}")
            }
            (Form::Delimited(delimiter), _)
                if self.address.is_some_and(|old| old.is_ipv4() == address.is_ipv4()) =>
            {
                write!(text, "{address}{}{port}", char::from(delimiter))
            }
            (Form::Port, _) => write!(text, "{port}"),
            _ => return None,
        }
        .ok()?;
        Some(text)
    }
}

/// A command or reply that has to announce something and does not: nobody can act on it, and a side that reads it
/// differently might act on something that was never checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an FTP command or reply that must announce an address or port announces none")]
pub struct Broken;

/// What a segment of `side` announces, line by line. Announcements of port 0, at which nobody can wait, are left out.
pub fn announcements(payload: &[u8], side: Side) -> impl Iterator<Item = Result<Announcement, Broken>> {
    let mut at = 0;
    payload.split_inclusive(|byte| *byte == b'\n').filter_map(move |line| {
        let start = at;
        at += line.len();
        let line = line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let found = match side {
            Side::Client => command(line),
            Side::Server => reply(line),
        };
        match found {
            Ok(Some(mut announcement)) => {
                announcement.range = announcement.range.start + start..announcement.range.end + start;
                (announcement.port != 0).then_some(Ok(announcement))
            }
            Ok(None) => None,
            Err(broken) => Some(Err(broken)),
        }
    })
}

/// The last line of a segment that its end cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Where it begins in the payload.
    pub start: usize,
    /// True if some of an address or port is there already.
    pub has_address: bool,
}

/// The line of `side` that breaks off at the end of a segment, if it announces something or may still do so.
#[must_use]
pub fn unfinished(payload: &[u8], side: Side) -> Option<Unfinished> {
    let start = payload.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let line = payload.get(start..).filter(|line| !line.is_empty())?;
    let words: &[&[u8]] = match side {
        Side::Client => &[b"PORT ", b"EPRT "],
        Side::Server => &[b"227 ", b"227-", b"229 ", b"229-"],
    };
    let word = words.iter().find(|word| {
        let length = word.len().min(line.len());
        line.get(..length)
            .is_some_and(|line| word.get(..length).is_some_and(|word| line.eq_ignore_ascii_case(word)))
    })?;
    let has_address = line.get(word.len()..).is_some_and(|rest| rest.iter().any(u8::is_ascii_digit));
    Some(Unfinished { start, has_address })
}

/// A line of the client (RFC 959 section 5.3: commands are not case-sensitive).
fn command(line: &[u8]) -> Result<Option<Announcement>, Broken> {
    let Some((name, argument)) = line.split_first_chunk::<4>() else { return Ok(None) };
    let is_port = name.eq_ignore_ascii_case(b"PORT");
    if !is_port && !name.eq_ignore_ascii_case(b"EPRT") {
        return Ok(None);
    }
    let spaces = argument.iter().take_while(|byte| **byte == b' ').count();
    if spaces == 0 && !argument.is_empty() {
        // Another command that begins alike.
        return Ok(None);
    }
    let at = name.len() + spaces;
    if is_port { six_numbers(line, at).ok_or(Broken).map(Some) } else { extended(line, at).map(Some) }
}

/// A line of the server. Its code is followed by a space, or by a hyphen where more lines follow (RFC 959 section
/// 4.2).
fn reply(line: &[u8]) -> Result<Option<Announcement>, Broken> {
    match line {
        [b'2', b'2', b'7', last @ (b' ' | b'-'), ..] => match passive(line) {
            None if *last == b' ' => Err(Broken),
            found => Ok(found),
        },
        [b'2', b'2', b'9', b' ' | b'-', ..] => extended_passive(line),
        _ => Ok(None),
    }
}

/// `h1,h2,h3,h4,p1,p2` at `at`.
fn six_numbers(line: &[u8], at: usize) -> Option<Announcement> {
    let mut numbers = [0u8; 6];
    let mut end = at;
    for (index, number) in numbers.iter_mut().enumerate() {
        if index > 0 {
            if line.get(end) != Some(&b',') {
                return None;
            }
            end += 1;
        }
        let (value, length) = decimal(line.get(end..)?, 3)?;
        *number = u8::try_from(value).ok()?;
        end += length;
    }
    if line.get(end).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let [a, b, c, d, high, low] = numbers;
    Some(Announcement {
        range: at..end,
        address: Some(Ipv4Addr::new(a, b, c, d).into()),
        port: u16::from_be_bytes([high, low]),
        form: Form::Commas,
    })
}

/// The number at the start of `bytes`, of at most `digits` digits, and how many it has.
fn decimal(bytes: &[u8], digits: usize) -> Option<(u32, usize)> {
    let length = bytes.iter().take(digits).take_while(|byte| byte.is_ascii_digit()).count();
    let value = bytes.iter().take(length).fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    (length > 0).then_some((value, length))
}

/// 227: RFC 959 does not say how the numbers are wrapped, and servers write `(...)`, `=...` or nothing at all (RFC
/// 1123 section 4.1.2.6: search for the first digit). Words with digits may stand in front of them.
fn passive(line: &[u8]) -> Option<Announcement> {
    let is_start = |at: usize| {
        let before = line.get(at.wrapping_sub(1)).copied().unwrap_or(b' ');
        !before.is_ascii_digit() && before != b',' && before != b'.'
    };
    (4..line.len())
        .filter(|at| line.get(*at).is_some_and(u8::is_ascii_digit) && is_start(*at))
        .find_map(|at| six_numbers(line, at))
}

/// `|net|address|port|` at `at` (RFC 2428 section 2).
fn extended(line: &[u8], at: usize) -> Result<Announcement, Broken> {
    let argument = line.get(at..).unwrap_or_default();
    let delimiter = *argument.first().filter(|byte| is_delimiter(**byte)).ok_or(Broken)?;
    let mut fields = argument.split(|byte| *byte == delimiter).skip(1);
    let mut field = || fields.next().ok_or(Broken);
    let (family, address, port, _end) = (field()?, field()?, field()?, field()?);
    let start = at + 1 + family.len() + 1;
    let range = start..start + address.len() + 1 + port.len();
    let address: IpAddr = core::str::from_utf8(address).map_err(|_| Broken)?.parse().map_err(|_| Broken)?;
    let family_fits = match family {
        b"1" => address.is_ipv4(),
        b"2" => address.is_ipv6(),
        _ => false,
    };
    let port = whole_port(port).ok_or(Broken)?;
    if !family_fits {
        return Err(Broken);
    }
    Ok(Announcement { range, address: Some(address), port, form: Form::Delimited(delimiter) })
}

/// 229: `(|||port|)` (RFC 2428 section 3); the parentheses may be missing.
fn extended_passive(line: &[u8]) -> Result<Option<Announcement>, Broken> {
    let is_start = |window: &[u8]| match window {
        [a, b, c, digit] => is_delimiter(*a) && a == b && b == c && digit.is_ascii_digit(),
        _ => false,
    };
    let Some(at) = line.windows(4).position(is_start) else { return Ok(None) };
    let (start, delimiter) = (at + 3, line.get(at).copied().unwrap_or_default());
    let rest = line.get(start..).unwrap_or_default();
    let length = rest.iter().position(|byte| *byte == delimiter).ok_or(Broken)?;
    let port = rest.get(..length).and_then(whole_port).ok_or(Broken)?;
    Ok(Some(Announcement { range: start..start + length, address: None, port, form: Form::Port }))
}

/// RFC 2428 section 2: any printable character may delimit; a digit or one that addresses are made of cannot.
const fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_hexdigit() && byte != b':' && byte != b'.'
}

fn whole_port(text: &[u8]) -> Option<u16> {
    let (value, length) = decimal(text, 5)?;
    if length == text.len() { u16::try_from(value).ok() } else { None }
}

#[cfg(test)]
mod tests;
