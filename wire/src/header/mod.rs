//! Views over the bytes of one header each: `View::new_checked(bytes)` and then named fields.
//!
//! Contract: `new_checked` is the only way to make a view. It refuses bytes in which the fixed part of the header
//! does not fit, or whose own length fields point outside of them, so that **no accessor panics**, whatever
//! the bytes are and whatever is written through the view's setters (accessors of variable parts clip to
//! what is there). It judges nothing else: versions, types and checksums are as they came. This holds for buffers
//! whose `as_ref` gives the same number of bytes each time, as slices, arrays and vectors do.
//!
//! The fast path reads [`crate::Layers`] and few fields directly; views are for everything that has time to be
//! readable: trackers, ALGs, packet builders, tests, tools.

use core::ops::Range;

pub mod arp;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vlan;

pub use arp::Arp;
pub use ethernet::Ethernet;
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use nd::NeighbourDiscovery;
pub use sctp::Sctp;
pub use tcp::Tcp;
pub use udp::Udp;
pub use vlan::Vlan;

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than the fixed part of the header has.
    #[error("the {header} header is cut: it needs {need} bytes, only {have} are there")]
    Short {
        /// Which header.
        header: &'static str,
        /// Bytes needed.
        need: usize,
        /// Bytes found.
        have: usize,
    },
    /// A length field that is below the header's minimum or points beyond the bytes.
    #[error("the {header} header's {field} says {value} bytes; at least {min} and at most {max} fit")]
    Length {
        /// Which header.
        header: &'static str,
        /// Which field.
        field: &'static str,
        /// What it says, in bytes.
        value: usize,
        /// Smallest legal value, in bytes.
        min: usize,
        /// Bytes that are there.
        max: usize,
    },
}

fn check_len(header: &'static str, bytes: &[u8], need: usize) -> Result<(), HeaderError> {
    if bytes.len() < need {
        return Err(HeaderError::Short { header, need, have: bytes.len() });
    }
    Ok(())
}

fn check_field(
    header: &'static str,
    field: &'static str,
    value: usize,
    min: usize,
    max: usize,
) -> Result<(), HeaderError> {
    if value < min || value > max {
        return Err(HeaderError::Length { header, field, value, min, max });
    }
    Ok(())
}

/// The bytes of a field; zeros if it lies outside, which `new_checked` rules out.
#[inline]
fn read<const N: usize>(bytes: &[u8], field: Range<usize>) -> [u8; N] {
    bytes.get(field).and_then(|field| field.first_chunk::<N>()).copied().unwrap_or([0; N])
}

#[inline]
fn write<const N: usize>(bytes: &mut [u8], field: Range<usize>, value: [u8; N]) {
    if let Some(field) = bytes.get_mut(field).and_then(|field| field.first_chunk_mut::<N>()) {
        *field = value;
    }
}

/// Declares a view: its struct, what every view can do, and its plain fields. A field is
/// `name, set_name: TYPE = RANGE`, where TYPE is `u8`, `u16` or `u32` (big-endian on the wire) or `[u8; N]`.
macro_rules! view {
    (
        $(#[$meta:meta])* $view:ident, $header:literal, $min:expr;
        $($(#[$field_meta:meta])* $name:ident, $set:ident: $kind:tt = $range:expr;)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $view<T>(T);

        impl<T> $view<T> {
            /// Bytes of the header's fixed part.
            pub const MIN_LEN: usize = $min;

            /// The bytes the view was made of.
            pub fn into_inner(self) -> T {
                self.0
            }
        }

        impl<T: AsRef<[u8]>> $view<T> {
            $(
                $(#[$field_meta])*
                #[inline]
                pub fn $name(&self) -> view!(@type $kind) {
                    view!(@decode $kind, $crate::header::read(self.0.as_ref(), $range))
                }
            )*
        }

        impl<T: AsRef<[u8]> + AsMut<[u8]>> $view<T> {
            $(
                #[doc = concat!("Writes [`Self::", stringify!($name), "`].")]
                #[inline]
                pub fn $set(&mut self, value: view!(@type $kind)) {
                    $crate::header::write(self.0.as_mut(), $range, view!(@encode $kind, value));
                }
            )*
        }
    };
    (@type [$n:literal]) => { [u8; $n] };
    (@type $int:ident) => { $int };
    (@decode [$n:literal], $bytes:expr) => { $bytes };
    (@decode $int:ident, $bytes:expr) => { $int::from_be_bytes($bytes) };
    (@encode [$n:literal], $value:expr) => { $value };
    (@encode $int:ident, $value:expr) => { $value.to_be_bytes() };
}
use view;
