//! What the store of fragments counts, for each address family. One list makes the fields, their names and their
//! documentation.

macro_rules! counters {
    ($($field:ident $doc:literal;)*) => {
        /// Fragments of one address family since the store was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct FragmentCounters {
            $(#[doc = $doc] pub $field: u64,)*
        }

        impl FragmentCounters {
            /// Name, value and meaning of each.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64, &'static str)> + '_ {
                [$((stringify!($field), self.$field, $doc)),*].into_iter()
            }

            /// Adds another store's.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }
        }
    };
}

counters! {
    accepted "Fragments taken in, to be put together.";
    completed "Fragments that went on because their datagram was complete.";
    datagrams "Datagrams put together.";
    expired "Fragments dropped because the rest of their datagram did not come in time.";
    purged "Fragments dropped because reassembly was turned off, or ports or bridges changed.";
    too_small "Fragments other than the last that were shorter than the least size.";
    malformed "Fragments without data, or other than the last with a length that is no multiple of 8.";
    duplicates "Fragments that had been taken in already.";
    overlapped "Fragments that overlapped another one, or that did not fit their datagram's end.";
    too_long "Fragments of datagrams that would be longer than 64 KiB.";
    refused "Fragments of a datagram that had been found to be invalid before.";
    store_full "Fragments that found the store full.";
    source_full "Fragments of a source that had its share of the store already.";
    disabled "Fragments that came while reassembly was turned off.";
}
