//! The filters of `dpctl/flush-conntrack` and `ct-flush`, in Open vSwitch's words: zone, mark, labels and one or two
//! tuples, `ct_nw_src=10.0.0.1,ct_nw_proto=6,ct_tp_dst=80`. Its texts for what is wrong are those of version 3.1 where
//! that has the form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::CommandError;
use crate::control::filter::{ConnectionFilter, Prefix, TupleFilter};
use crate::flow::nearest;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The fields of a tuple.
const FIELDS: [&str; 10] = [
    "ct_nw_src",
    "ct_nw_dst",
    "ct_ipv6_src",
    "ct_ipv6_dst",
    "ct_nw_proto",
    "ct_tp_src",
    "ct_tp_dst",
    "icmp_id",
    "icmp_type",
    "icmp_code",
];

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectionError {
    #[error("failed to parse zone")]
    Zone,
    #[error("failed to parse mark")]
    Mark,
    #[error("failed to parse labels")]
    Labels,
    #[error("field {0} missing value")]
    MissingValue(String),
    #[error("invalid conntrack tuple field: {0}")]
    UnknownField(String),
    #[error("failed to parse field {0}")]
    BadValue(String),
    #[error("{0} is set multiple times")]
    Repeated(String),
    #[error("the L3 protocol does not match {0}")]
    MixedFamilies(String),
    #[error("port is set without protocol")]
    PortAlone,
    #[error("invalid L4 fields")]
    MixedTransport,
    #[error("more than two tuples: {0}")]
    TooManyTuples(String),
}

impl SelectionError {
    /// What may help, on a line of its own.
    fn hint(&self) -> String {
        match self {
            Self::UnknownField(name) => nearest(name, FIELDS)
                .map(|near| format!("\ndid you mean {near}?"))
                .unwrap_or_else(|| format!("\nthe fields are {}", FIELDS.join(", "))),
            Self::Zone => "\na zone is 0 to 65535".into(),
            Self::PortAlone => "\ngive ct_nw_proto too".into(),
            Self::MixedTransport => {
                "\nicmp_id, icmp_type and icmp_code go with ct_nw_proto=1 or 58, ct_tp_src and ct_tp_dst with others"
                    .into()
            }
            _ => String::new(),
        }
    }

    /// As ovs-appctl says it.
    pub(super) fn of_dpctl(&self) -> CommandError {
        CommandError::Failed(format!("{self} (Invalid argument){}", self.hint()))
    }

    /// As ovs-ofctl says it.
    pub(super) fn of_ofctl(&self) -> CommandError {
        let what = match self {
            Self::Zone => "Failed to parse zone".into(),
            _ => format!("Failed to parse ct-tuple: {self}"),
        };
        CommandError::Failed(format!("{what}{}", self.hint()))
    }
}

/// Reads `[zone=N] [mark=X[/M]] [labels=X[/M]] [ORIG-TUPLE [REPLY-TUPLE]]`, the first three in any order.
pub(super) fn selection(args: &[&str]) -> Result<ConnectionFilter, SelectionError> {
    let mut filter = ConnectionFilter::default();
    let mut tuples = 0;
    for &arg in args {
        let repeated = |name: &str, given| {
            if given { Err(SelectionError::Repeated(name.into())) } else { Ok(()) }
        };
        if let Some(zone) = arg.strip_prefix("zone=") {
            repeated("zone", filter.zone.is_some())?;
            filter.zone = Some(number(zone).ok_or(SelectionError::Zone)?);
        } else if let Some(mark) = arg.strip_prefix("mark=") {
            repeated("mark", filter.mark.is_some())?;
            filter.mark = Some(masked(mark).ok_or(SelectionError::Mark)?);
        } else if let Some(labels) = arg.strip_prefix("labels=") {
            repeated("labels", filter.labels.is_some())?;
            filter.labels = Some(masked(labels).ok_or(SelectionError::Labels)?);
        } else {
            let place = match tuples {
                0 => &mut filter.original,
                1 => &mut filter.reply,
                _ => return Err(SelectionError::TooManyTuples(arg.into())),
            };
            *place = tuple(arg)?;
            tuples += 1;
        }
    }
    Ok(filter)
}

fn tuple(text: &str) -> Result<TupleFilter, SelectionError> {
    let mut tuple = TupleFilter::default();
    let mut seen = Vec::new();
    // An empty tuple stands for any, so that a reply tuple can be given alone.
    for part in text.split([',', ' ', '\t']).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if value.is_empty() {
            return Err(SelectionError::MissingValue(key.into()));
        }
        if seen.contains(&key) {
            return Err(SelectionError::Repeated(key.into()));
        }
        seen.push(key);
        let bad = || SelectionError::BadValue(key.into());
        let v4 = || value.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| bad());
        let v6 = || value.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| bad());
        let port = || number(value).map(|port: u16| port..=port).ok_or_else(bad);
        match key {
            "ct_nw_src" => tuple.src = Some(Prefix::host(v4()?)),
            "ct_nw_dst" => tuple.dst = Some(Prefix::host(v4()?)),
            "ct_ipv6_src" => tuple.src = Some(Prefix::host(v6()?)),
            "ct_ipv6_dst" => tuple.dst = Some(Prefix::host(v6()?)),
            "ct_nw_proto" => tuple.protocol = Some(number(value).ok_or_else(bad)?),
            "ct_tp_src" => tuple.tp_src = Some(port()?),
            "ct_tp_dst" => tuple.tp_dst = Some(port()?),
            "icmp_id" => tuple.icmp_id = Some(number(value).ok_or_else(bad)?),
            "icmp_type" => tuple.icmp_type = Some(number(value).ok_or_else(bad)?),
            "icmp_code" => tuple.icmp_code = Some(number(value).ok_or_else(bad)?),
            _ => return Err(SelectionError::UnknownField(key.into())),
        }
        let of = |family: [&str; 2]| seen.iter().any(|name| family.contains(name));
        if of(["ct_nw_src", "ct_nw_dst"]) && of(["ct_ipv6_src", "ct_ipv6_dst"]) {
            return Err(SelectionError::MixedFamilies(value.into()));
        }
    }
    let icmp = tuple.icmp_id.is_some() || tuple.icmp_type.is_some() || tuple.icmp_code.is_some();
    let ports = tuple.tp_src.is_some() || tuple.tp_dst.is_some();
    match tuple.protocol {
        Some(ICMP | ICMPV6) if ports => Err(SelectionError::MixedTransport),
        Some(ICMP | ICMPV6) => Ok(tuple),
        _ if icmp => Err(SelectionError::MixedTransport),
        None if ports => Err(SelectionError::PortAlone),
        _ => Ok(tuple),
    }
}

/// A decimal number, or a hexadecimal one with 0x.
pub(super) fn number<T: TryFrom<u128>>(text: &str) -> Option<T> {
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u128::from_str_radix(digits, 16).ok()?,
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
        _ => return None,
    };
    T::try_from(value).ok()
}

/// A number with a mask behind a slash, all ones of its width without.
pub(super) fn masked<T: TryFrom<u128>>(text: &str) -> Option<(T, T)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => {
            // All ones of T's width.
            let ones = u128::MAX >> (128 - 8 * u32::try_from(size_of::<T>()).ok()?);
            Some((number(text)?, T::try_from(ones).ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_in_open_vswitchs_words() {
        for (args, message) in [
            (&["zone=x"][..], "failed to parse zone"),
            (&["zone=70000"], "failed to parse zone"),
            (&["zone=1", "zone=5"], "zone is set multiple times"),
            (&["mark=1/x"], "failed to parse mark"),
            (&["mark=0x100000000"], "failed to parse mark"),
            (&["labels="], "failed to parse labels"),
            (&["foo"], "field foo missing value"),
            (&["ct_nw_src="], "field ct_nw_src missing value"),
            (&["bogus=3"], "invalid conntrack tuple field: bogus"),
            (&["ct_nw_src=x"], "failed to parse field ct_nw_src"),
            (&["ct_nw_src=10.1.1.1/24"], "failed to parse field ct_nw_src"),
            (&["ct_ipv6_src=10.1.1.1"], "failed to parse field ct_ipv6_src"),
            (&["ct_nw_src=10.1.1.4,ct_ipv6_src=::1"], "the L3 protocol does not match ::1"),
            (&["ct_nw_src=10.1.1.4,ct_nw_src=10.1.1.5"], "ct_nw_src is set multiple times"),
            (&["ct_nw_proto=tcp"], "failed to parse field ct_nw_proto"),
            (&["ct_nw_proto=300"], "failed to parse field ct_nw_proto"),
            (&["ct_tp_src=70000"], "failed to parse field ct_tp_src"),
            (&["ct_tp_src=40002"], "port is set without protocol"),
            (&["icmp_id=8"], "invalid L4 fields"),
            (&["ct_nw_proto=6,icmp_id=8"], "invalid L4 fields"),
            (&["", "", ""], "more than two tuples: "),
        ] {
            assert_eq!(selection(args).unwrap_err().to_string(), message, "{args:?}");
        }
    }

    #[test]
    fn fields_come_in_any_order_with_commas_or_spaces_between() {
        let one = selection(&["ct_tp_src=0x9c42, ct_nw_proto=6,,ct_nw_src=10.1.1.4"]).unwrap();
        let other = selection(&["ct_nw_src=10.1.1.4 ct_nw_proto=6 ct_tp_src=40002"]).unwrap();
        assert_eq!(one, other);
        assert_eq!(selection(&["", "ct_nw_proto=17"]).unwrap().reply.protocol, Some(17));
        assert_eq!(selection(&["labels=0x1/0xff", "zone=3"]).unwrap().labels, Some((1, 0xff)));
    }

    proptest::proptest! {
        #[test]
        fn no_argument_makes_it_panic(args in proptest::collection::vec(".{0,40}", 0..4)) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let _ = selection(&args);
        }
    }
}
