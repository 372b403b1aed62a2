//! What a shard counts. One list makes the fields, their names and their documentation.

use weir_wire::Invalid;

macro_rules! counters {
    ($($field:ident $doc:literal;)*) => {
        /// Events since the shard was made.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $doc] pub $field: u64,)*
            /// Packets that have no tuple, by [`Invalid::index`].
            pub invalid: [u64; Invalid::COUNT],
        }

        impl Counters {
            /// Name, value and meaning of each, those of invalid packets last.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64, String)> + '_ {
                let own = [$((stringify!($field), self.$field, String::from($doc))),*];
                let invalid = Invalid::ALL.into_iter().zip(self.invalid);
                own.into_iter().chain(invalid.map(|(cause, count)| (cause.name(), count, cause.to_string())))
            }

            /// Adds another shard's.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
                for (own, other) in self.invalid.iter_mut().zip(other.invalid) {
                    *own = own.wrapping_add(other);
                }
            }
        }
    };
}

counters! {
    created "Connections committed.";
    expired "Connections that ended by their timeout.";
    flushed "Connections removed by a command.";
    replaced "Connections removed by a packet: commit with force, or a SYN on a closed connection.";
    refused_by_limit "New connections refused because max_connections was reached.";
    refused_by_zone_limit "New connections refused because their zone's limit was reached.";
    refused_unsettled "Refused connections, counted above or below as well, for which 4096 others were looked at, not all that may have expired.";
    refused_by_full_table "New connections refused because the table had no place.";
    refused_by_readers "New connections refused because readers held up the reuse of all memory that was left.";
    refused_by_clash "New connections refused because another one owns their reply tuple.";
    nat_exhausted "Packets dropped because no free address and port was left to translate to.";
    untranslated "Packets dropped because their connection's translation could not be applied.";
    events_lost "Events that a listener had no room for.";
    established "Packets found to be part of an established connection.";
    new "Packets found to be new.";
    expectations "Data connections that control connections announced.";
    expectations_refused "Data connections announced that were one too many to be expected.";
    expectations_refused_by_share "Data connections announced while as many were expected as may be for one source.";
    expected "Data connections committed that were expected.";
    cut_control "Segments with an FTP address, or part of one, that went on untranslated: its line was cut, or a later segment had overtaken it.";
    broken_control "Segments with an FTP command or reply that announces no valid address and port.";
    edited "Packets whose payload was edited for a translation.";
    edits_refused "Packets not translated because as many connections had their payload edited as may have.";
    edits_refused_by_share "Packets not translated because as many connections had their payload edited as may have for one source.";
    related "ICMP errors found to be related to a connection.";
    tcp_out_of_window "TCP segments outside their connection's window.";
    tcp_bad_start "TCP segments that may not start a connection.";
    sctp_out_of_state "SCTP packets whose tag or chunks do not fit their association.";
    sctp_bad_start "SCTP packets that may not start an association.";
    icmp_bad_start "ICMP answers without a query.";
    icmp_unknown "ICMP errors about packets of no connection.";
    asks "Steps of packets that asked other shards for a tuple.";
    refused_by_home "New connections refused because the home of their tuple could give away no more.";
    redirects_refused "Tuples not given to another shard because as many were given away as may be.";
    handover_hops "Packets dropped because they were handed from shard to shard too often.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_counter_has_a_name_of_its_own_and_is_added() {
        let mut counters = Counters { created: 2, ..Counters::default() };
        counters.invalid[3] = 5;
        counters.add(&counters.clone());
        let names: BTreeSet<_> = counters.iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), counters.iter().count());
        assert_eq!(counters.iter().map(|(_, value, _)| value).sum::<u64>(), 14);
    }
}
