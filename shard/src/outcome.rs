//! What becomes of a packet after a ct action.

use crate::errand::Reason;
use crate::steering::ShardNumber;

/// The end of a ct action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The packet goes on.
    Continue {
        /// Its headers were translated: whoever has parsed fields of it must read them again.
        rewritten: bool,
    },
    /// The packet goes on when its payload has been edited as [`Shard::take_edits`](crate::Shard::take_edits) says,
    /// lengths and checksums with it; its headers were translated. One whose buffer has no room for that must not go
    /// on.
    Edit,
    /// The packet is another shard's to track: it goes there with what [`Shard::take_errand`](crate::Shard::take_errand)
    /// gives, to be [resumed](crate::Shard::resume) at this same action.
    Elsewhere {
        /// Where.
        to: ShardNumber,
        /// Why.
        why: Reason,
    },
    /// The packet must not go on.
    Drop(DropReason),
}

macro_rules! reasons {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// Why a packet must not go on. All but the last are packets that had to be translated and could not be.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $doc] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),*];
            /// How many there are.
            pub const COUNT: usize = [$($name),*].len();

            /// A number below [`DropReason::COUNT`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
            /// Name for counters.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
            /// One sentence.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => $doc),* }
            }
        }
    };
}

reasons! {
    NatExhausted "nat_exhausted" "No address and port of the range is free.";
    NatFamily "nat_family" "The range's addresses are of another family than the packet.";
    NatRefused "nat_refused" "The connection was to be translated and was refused: limit reached or table full, or too much is expected or edited already.";
    NatInvalid "nat_invalid" "The packet is invalid and of no connection, so that the range which it was to be translated by cannot be applied.";
    Untranslatable "untranslatable" "The packet's headers, or the addresses in its payload, cannot carry the translation.";
    Stale "stale" "The connection that had translated the packet ended before its next ct action.";
    HandoverHops "handover_hops" "The packet was handed from shard to shard too often: connections came and went faster than it travelled.";
}
