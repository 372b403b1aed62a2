use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Store = Fragments<u32>;

fn store(settings: FragmentSettings) -> Store {
    Fragments::new(settings, 7)
}

fn key(source: u32, id: u32) -> DatagramKey {
    DatagramKey {
        src: IpAddr::from(source.to_be_bytes()),
        dst: IpAddr::from([10, 0, 0, 1]),
        id,
        protocol: 17,
        zone: 0,
        recirculation: 0,
    }
}

/// A fragment with these bytes of data, large enough whatever it holds.
fn part(offset: u16, length: u16, more: bool) -> Fragment {
    Fragment { offset, length, more, packet_len: 1500, header_len: 20, protocol: 17 }
}

/// Offers one after another, each named by its place; what became of the last, and the tokens given back by it.
fn offer_all(store: &mut Store, fragments: &[Fragment]) -> (Offer, Vec<u32>) {
    let (mut taken, mut offer) = (Vec::new(), Offer::Held);
    for (token, fragment) in (0..).zip(fragments) {
        assert_eq!(offer, Offer::Held, "before {fragment:?}");
        offer = store.offer(0, &key(1, 1), fragment, token, &mut taken);
    }
    (offer, taken)
}

fn is_empty(store: &Store) -> bool {
    store.held == 0
        && store.refused == 0
        && store.index.is_empty()
        && store.sources.is_empty()
        && store.oldest == NONE
        && store.newest == NONE
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(count - 1) {
        for place in 0..count {
            let mut longer = shorter.clone();
            longer.insert(place, count - 1);
            all.push(longer);
        }
    }
    all
}

#[test]
fn four_fragments_in_every_order_make_one_datagram_in_the_order_of_offsets() {
    let fragments = [part(0, 1480, true), part(1480, 8, true), part(1488, 1480, true), part(2968, 1, false)];
    let orders = permutations(4);
    assert_eq!(orders.len(), 24);
    for order in orders {
        let mut store = store(FragmentSettings::default());
        let mut taken = Vec::new();
        for (done, &at) in order.iter().enumerate() {
            let token = u32::try_from(at).unwrap();
            let offer = store.offer(5, &key(1, 1), &fragments[at], token, &mut taken);
            assert_eq!(offer, if done == 3 { Offer::Complete } else { Offer::Held }, "{order:?}");
        }
        assert_eq!(taken, [0, 1, 2, 3], "{order:?}");
        assert!(is_empty(&store));
        let counters = store.status(Family::V4).counters;
        assert_eq!((counters.accepted, counters.completed, counters.datagrams), (4, 4, 1));
    }
}

#[test]
fn datagrams_that_differ_in_any_part_of_the_key_are_apart() {
    let mut store = store(FragmentSettings::default());
    let one = key(1, 1);
    let others = [
        DatagramKey { src: IpAddr::from([9, 9, 9, 9]), ..one },
        DatagramKey { dst: IpAddr::from([9, 9, 9, 9]), ..one },
        DatagramKey { id: 2, ..one },
        DatagramKey { protocol: 6, ..one },
        DatagramKey { zone: 1, ..one },
        DatagramKey { recirculation: 1, ..one },
    ];
    let mut taken = Vec::new();
    assert_eq!(store.offer(0, &one, &part(0, 8, true), 0, &mut taken), Offer::Held);
    for (token, other) in (1..).zip(&others) {
        assert_eq!(store.offer(0, other, &part(8, 8, false), token, &mut taken), Offer::Held, "{other:?}");
    }
    assert_eq!(store.offer(0, &one, &part(8, 8, false), 9, &mut taken), Offer::Complete);
    assert_eq!(taken, [0, 9]);
    assert_eq!(store.datagrams(), others.len());
}

#[test]
fn every_kind_of_overlap_makes_the_datagram_invalid_to_its_last_fragment() {
    let held = [part(0, 800, true), part(1600, 800, true)];
    for overlapping in [
        part(0, 808, true),    // longer than the one at its place
        part(0, 792, true),    // shorter
        part(8, 16, true),     // teardrop: inside another
        part(792, 16, true),   // over an end
        part(792, 808, true),  // over an end, up to the next
        part(1592, 16, true),  // over a beginning
        part(800, 808, true),  // from an end over a beginning
        part(792, 1000, true), // over two
        part(1608, 8, false),  // inside, and the last
        part(800, 8, false),   // an end before data that are there
        part(0, 800, false),   // the same bytes as the last
    ] {
        let mut store = store(FragmentSettings::default());
        let (offer, taken) = offer_all(&mut store, &[held[0], held[1], overlapping]);
        assert_eq!((offer, &taken[..]), (Offer::Broken(Cause::Overlap), &[0, 1][..]), "{overlapping:?}");
        for late in [part(800, 800, true), part(2400, 8, false)] {
            let offer = store.offer(LIFETIME - 1, &key(1, 1), &late, 9, &mut Vec::new());
            assert_eq!(offer, Offer::Refused(Cause::Refused), "{overlapping:?}");
        }
        assert_eq!((store.held(), store.datagrams()), (0, 1));
        // Its identification is free again when its time is over.
        assert_eq!(store.sweep(LIFETIME, 8, &mut Vec::new(), |_| unreachable!()), 1);
        assert!(is_empty(&store));
    }
}

#[test]
fn whatever_disagrees_with_a_known_end_is_an_overlap() {
    for late in [part(2400, 8, false), part(1608, 8, true), part(1600, 16, false), part(1600, 8, true)] {
        let mut store = store(FragmentSettings::default());
        let (offer, _) = offer_all(&mut store, &[part(1600, 8, false), late]);
        assert_eq!(offer, Offer::Broken(Cause::Overlap), "{late:?}");
    }
}

#[test]
fn an_exact_repetition_is_refused_alone() {
    let mut store = store(FragmentSettings::default());
    let mut taken = Vec::new();
    let mut offer = |fragment, token| store.offer(0, &key(1, 1), &fragment, token, &mut taken);
    assert_eq!(offer(part(0, 800, true), 0), Offer::Held);
    assert_eq!(offer(part(0, 800, true), 1), Offer::Refused(Cause::Duplicate));
    assert_eq!(offer(part(1600, 3, false), 2), Offer::Held);
    assert_eq!(offer(part(1600, 3, false), 3), Offer::Refused(Cause::Duplicate));
    assert_eq!(offer(part(800, 800, true), 4), Offer::Complete);
    assert_eq!(taken, [0, 4, 2]);
    assert_eq!(store.status(Family::V4).counters.duplicates, 2);
}

#[test]
fn fragments_that_no_sender_makes_are_refused_without_harm() {
    let mut store = store(FragmentSettings::default());
    let mut taken = Vec::new();
    let mut refused = |fragment: Fragment, cause| {
        assert_eq!(
            store.offer(0, &key(1, 1), &fragment, 0, &mut taken),
            Offer::Refused(cause),
            "{fragment:?}"
        );
        assert!(is_empty(&store));
    };
    refused(part(0, 0, true), Cause::Malformed);
    refused(part(8, 0, false), Cause::Malformed);
    refused(part(0, 1481, true), Cause::Malformed);
    refused(Fragment { packet_len: 1199, ..part(0, 1176, true) }, Cause::TooSmall);
    refused(part(65_528, 0xfff8, true), Cause::TooLong);
    refused(part(65_528, 0xffff, false), Cause::TooLong);
    refused(part(65_512, 8, false), Cause::TooLong);
    // The last one may be small, and the least size is the family's.
    assert_eq!(
        store.offer(0, &key(1, 1), &Fragment { packet_len: 21, ..part(8, 1, false) }, 0, &mut taken),
        Offer::Held
    );
    let v6 = DatagramKey { src: IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]), ..key(1, 1) };
    let fragment = Fragment { packet_len: 1279, ..part(0, 1176, true) };
    assert_eq!(store.offer(0, &v6, &fragment, 0, &mut taken), Offer::Refused(Cause::TooSmall));
    assert_eq!(store.status(Family::V6).counters.too_small, 1);
    assert_eq!(store.status(Family::V4).counters.too_small, 1);
}

#[test]
fn sixty_four_kibibytes_are_the_end() {
    // In IPv4 with a header of 20 bytes: 65515 bytes of data are the most.
    let mut fits = self::store(FragmentSettings::default());
    let (offer, _) = offer_all(&mut fits, &[part(0, 65_504, true), part(65_504, 11, false)]);
    assert_eq!(offer, Offer::Complete);
    let mut exceeds = self::store(FragmentSettings::default());
    let (offer, taken) = offer_all(&mut exceeds, &[part(0, 65_504, true), part(65_504, 12, false)]);
    assert_eq!((offer, &taken[..]), (Offer::Broken(Cause::TooLong), &[0][..]));
    // In IPv6 the first 40 bytes do not count.
    let v6 = DatagramKey { src: IpAddr::from([1u16; 8]), dst: IpAddr::from([2u16; 8]), ..key(1, 1) };
    let mut store = self::store(FragmentSettings::default());
    for (length, expected) in [(32, Offer::Refused(Cause::TooLong)), (31, Offer::Held)] {
        let last = Fragment { header_len: 40, ..part(65_504, length, false) };
        assert_eq!(store.offer(0, &v6, &last, 0, &mut Vec::new()), expected);
    }
    // A first fragment with more headers in front than the last one had.
    let mut exceeds = self::store(FragmentSettings::default());
    let first = Fragment { header_len: 28, ..part(0, 65_504, true) };
    let (offer, taken) = offer_all(&mut exceeds, &[part(65_504, 11, false), first]);
    assert_eq!((offer, &taken[..]), (Offer::Broken(Cause::TooLong), &[0][..]));
}

#[test]
fn a_datagram_without_its_first_middle_or_last_fragment_expires() {
    let all = [part(0, 8, true), part(8, 8, true), part(16, 8, false)];
    for missing in 0..3 {
        let mut store = store(FragmentSettings::default());
        let there: Vec<_> =
            all.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, f)| *f).collect();
        assert_eq!(offer_all(&mut store, &there).0, Offer::Held);
        let (mut taken, mut gone) = (Vec::new(), Vec::new());
        assert_eq!(store.sweep(LIFETIME - 1, 8, &mut taken, |token| gone.push(token)), 0);
        assert_eq!(store.sweep(LIFETIME, 8, &mut taken, |token| gone.push(token)), 1);
        assert_eq!(gone, [0, 1], "without {missing}");
        assert_eq!(store.status(Family::V4).counters.expired, 2);
        assert!(is_empty(&store));
    }
}

#[test]
fn a_fragment_that_comes_too_late_does_not_complete_what_nobody_has_swept_yet() {
    let mut store = store(FragmentSettings::default());
    let mut taken = Vec::new();
    assert_eq!(store.offer(0, &key(1, 1), &part(0, 8, true), 0, &mut taken), Offer::Held);
    let late = part(8, 8, false);
    assert_eq!(store.offer(LIFETIME, &key(1, 1), &late, 1, &mut taken), Offer::Expired);
    assert_eq!(taken, [0]);
    assert_eq!(store.offer(LIFETIME, &key(1, 1), &late, 1, &mut taken), Offer::Held);
    assert_eq!(store.offer(LIFETIME + 1, &key(1, 1), &part(0, 8, true), 2, &mut taken), Offer::Complete);
    assert_eq!(taken, [2, 1]);
}

#[test]
fn a_sweep_does_no_more_than_its_budget_and_oldest_first() {
    let mut store = store(FragmentSettings::default());
    for id in 0..10 {
        let offer = store.offer(id.into(), &key(1, id), &part(0, 8, true), id, &mut Vec::new());
        assert_eq!(offer, Offer::Held);
    }
    let mut gone = Vec::new();
    assert_eq!(store.sweep(LIFETIME + 6, 4, &mut Vec::new(), |token| gone.push(token)), 4);
    assert_eq!(store.sweep(LIFETIME + 6, 4, &mut Vec::new(), |token| gone.push(token)), 3);
    assert_eq!(gone, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!((store.held(), store.datagrams()), (3, 3));
}

#[test]
fn one_source_that_floods_leaves_room_for_the_others() {
    let mut store = store(FragmentSettings::default());
    let share = store.share();
    assert_eq!(share, DEFAULT_MAX / 8);
    let mut taken = Vec::new();
    for id in 0..2000 {
        let offer = store.offer(0, &key(1, id), &part(0, 8, true), id, &mut taken);
        assert_eq!(offer, if id < share { Offer::Held } else { Offer::Refused(Cause::SourceFull) });
    }
    // What makes a datagram complete needs no room, and gives some back.
    assert_eq!(store.offer(0, &key(1, 0), &part(8, 8, false), 0, &mut taken), Offer::Complete);
    assert_eq!(store.offer(0, &key(1, 5000), &part(0, 8, true), 0, &mut taken), Offer::Held);
    // Invalid datagrams are remembered at the source's cost.
    assert_eq!(store.offer(0, &key(1, 1), &part(0, 16, true), 0, &mut taken), Offer::Broken(Cause::Overlap));
    assert_eq!(
        store.offer(0, &key(1, 5001), &part(0, 8, true), 0, &mut taken),
        Offer::Refused(Cause::SourceFull)
    );
    for source in 2..9 {
        for id in 0..share {
            assert_eq!(store.offer(0, &key(source, id), &part(0, 8, true), 0, &mut taken), Offer::Held);
        }
    }
    assert_eq!(
        store.offer(0, &key(9, 0), &part(0, 8, true), 0, &mut taken),
        Offer::Refused(Cause::StoreFull)
    );
    assert_eq!(store.sweep(LIFETIME, u32::MAX, &mut taken, |_| {}), DEFAULT_MAX);
    assert!(is_empty(&store));
}

#[test]
fn in_ipv6_a_source_is_a_network_of_64_bits() {
    let mut store = store(FragmentSettings { max: 64, ..FragmentSettings::default() });
    let from = |host: u16, network: u16| DatagramKey {
        src: IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]),
        ..key(1, host.into())
    };
    let mut settings = *store.settings();
    settings.max = 600;
    store.set(settings);
    for host in 0..80 {
        let offer = store.offer(0, &from(host, 1), &part(0, 8, true), 0, &mut Vec::new());
        assert_eq!(offer == Offer::Held, u32::from(host) < store.share(), "{host}");
    }
    assert_eq!(store.offer(0, &from(0, 2), &part(0, 8, true), 0, &mut Vec::new()), Offer::Held);
}

#[test]
fn a_lower_limit_refuses_what_comes_and_keeps_what_is_held() {
    let mut store = store(FragmentSettings::default());
    let mut taken = Vec::new();
    for id in 0..10 {
        assert_eq!(store.offer(0, &key(id, 1), &part(0, 8, true), id, &mut taken), Offer::Held);
    }
    store.set(FragmentSettings { max: 5, ..FragmentSettings::default() });
    assert_eq!(store.held(), 10);
    assert_eq!(
        store.offer(0, &key(0, 1), &part(8, 8, true), 0, &mut taken),
        Offer::Refused(Cause::StoreFull)
    );
    for id in 0..6 {
        assert_eq!(store.offer(0, &key(id, 1), &part(8, 8, false), id, &mut taken), Offer::Complete);
    }
    assert_eq!(store.offer(0, &key(0, 1), &part(0, 8, true), 0, &mut taken), Offer::Held);
    store.set(FragmentSettings { max: 0, ..FragmentSettings::default() });
    assert_eq!(
        store.offer(0, &key(1, 1), &part(0, 8, true), 0, &mut taken),
        Offer::Refused(Cause::StoreFull)
    );
}

#[test]
fn a_family_that_is_turned_off_is_refused_and_purged_alone() {
    let mut store = store(FragmentSettings::default());
    let v6 = DatagramKey { src: IpAddr::from([1u16; 8]), dst: IpAddr::from([2u16; 8]), ..key(1, 1) };
    let mut taken = Vec::new();
    assert_eq!(store.offer(0, &key(1, 1), &part(0, 8, true), 4, &mut taken), Offer::Held);
    assert_eq!(store.offer(0, &v6, &part(0, 8, true), 6, &mut taken), Offer::Held);
    store.set(FragmentSettings { enabled: [false, true], ..FragmentSettings::default() });
    let mut gone = Vec::new();
    store.purge(&[Family::V4], |token| gone.push(token));
    assert_eq!((&gone[..], store.status(Family::V4).counters.purged), (&[4][..], 1));
    assert_eq!(
        store.offer(0, &key(1, 1), &part(8, 8, false), 4, &mut taken),
        Offer::Refused(Cause::Disabled)
    );
    assert_eq!(store.offer(0, &v6, &part(8, 8, false), 7, &mut taken), Offer::Complete);
    assert!(is_empty(&store));
}

#[test]
fn what_is_under_way_is_shown_page_by_page() {
    let mut store = store(FragmentSettings::default());
    let mut taken = Vec::new();
    for id in 0..5 {
        let fragment = if id == 3 { part(16, 8, false) } else { part(0, 8, true) };
        assert_eq!(store.offer(0, &key(1, id), &fragment, id, &mut taken), Offer::Held);
    }
    assert_eq!(store.offer(0, &key(1, 2), &part(8, 8, false), 0, &mut taken), Offer::Complete);
    let (mut rows, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let (page, more) = store.page(from, 2);
        rows.extend(page);
        next = more;
    }
    let ids: Vec<_> =
        rows.iter().map(|row| (row.key.id, row.fragments, row.has_first, row.has_last)).collect();
    assert_eq!(ids, [(0, 1, true, false), (1, 1, true, false), (3, 1, false, true), (4, 1, true, false)]);
}

/// One datagram as a person would write it down: which byte was brought by which fragment.
#[derive(Default)]
struct Naive {
    bytes: BTreeMap<u32, u32>,
    fragments: Vec<(Fragment, u32)>,
    broken: bool,
}

impl Naive {
    fn offer(&mut self, fragment: &Fragment, token: u32) -> (Offer, Vec<u32>) {
        if fragment.length == 0 || fragment.more && !fragment.length.is_multiple_of(8) {
            return (Offer::Refused(Cause::Malformed), Vec::new());
        }
        if self.broken {
            return (Offer::Refused(Cause::Refused), Vec::new());
        }
        let same = |(other, _): &(Fragment, u32)| {
            (other.offset, other.length, other.more) == (fragment.offset, fragment.length, fragment.more)
        };
        if self.fragments.iter().any(same) {
            return (Offer::Refused(Cause::Duplicate), Vec::new());
        }
        let range = u32::from(fragment.offset)..fragment.end();
        let end = self.fragments.iter().find(|(other, _)| !other.more).map(|(other, _)| other.end());
        let highest = self.bytes.keys().next_back().copied();
        let fits = range.clone().all(|byte| !self.bytes.contains_key(&byte))
            && (fragment.more || end.is_none() && highest.is_none_or(|byte| byte < range.end))
            && end.is_none_or(|end| range.end <= end);
        if !fits {
            self.broken = true;
            let tokens = self.in_order();
            *self = Self { broken: true, ..Self::default() };
            return (Offer::Broken(Cause::Overlap), tokens);
        }
        self.bytes.extend(range.map(|byte| (byte, token)));
        self.fragments.push((*fragment, token));
        let end = if fragment.more { end } else { Some(fragment.end()) };
        if end.is_some_and(|end| (0..end).all(|byte| self.bytes.contains_key(&byte))) {
            let tokens = self.in_order();
            *self = Self::default();
            return (Offer::Complete, tokens);
        }
        (Offer::Held, Vec::new())
    }

    fn in_order(&self) -> Vec<u32> {
        let mut fragments = self.fragments.clone();
        fragments.sort_by_key(|(fragment, _)| fragment.offset);
        fragments.into_iter().map(|(_, token)| token).collect()
    }
}

proptest! {
    #[test]
    fn the_store_does_what_a_naive_reassembler_does(
        offers in proptest::collection::vec((0u32..4, 0u16..6, 0u16..33, proptest::bool::weighted(0.7)), 1..200),
    ) {
        let mut store = store(FragmentSettings { max: LARGEST_MAX, ..FragmentSettings::default() });
        let mut naive: BTreeMap<u32, Naive> = BTreeMap::new();
        let mut taken = Vec::new();
        for (token, (id, offset, length, more)) in (0..).zip(offers) {
            // Mostly whole units of eight bytes, so that datagrams come to their end.
            let length = if length > 8 { (length - 8) / 8 * 8 } else { length };
            let fragment = part(offset * 8, length, more);
            let expected = naive.entry(id).or_default().offer(&fragment, token);
            let offer = store.offer(0, &key(1, id), &fragment, token, &mut taken);
            prop_assert_eq!((offer, taken.clone()), expected, "{} {:?}", id, fragment);
        }
        let held: usize = naive.values().map(|naive| naive.fragments.len()).sum();
        prop_assert_eq!(store.held() as usize, held);
        store.sweep(LIFETIME, u32::MAX, &mut taken, |_| {});
        prop_assert!(is_empty(&store));
    }

    #[test]
    fn any_cut_of_a_datagram_in_any_order_is_put_together_once(
        cuts in proptest::collection::btree_set(1u16..400, 1..30),
        order in any::<u64>(),
    ) {
        let mut cuts: Vec<u16> = cuts.into_iter().map(|cut| cut * 8).collect();
        cuts.insert(0, 0);
        cuts.push(3205);
        let count = cuts.len() - 1;
        let mut fragments: Vec<(u32, Fragment)> = (0..)
            .zip(cuts.windows(2))
            .map(|(token, cut)| (token, part(cut[0], cut[1] - cut[0], cut[1] != 3205)))
            .collect();
        let mut random = order;
        for at in (1..count).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            fragments.swap(at, usize::try_from(random >> 33).unwrap() % (at + 1));
        }
        let mut store = store(FragmentSettings::default());
        let mut taken = Vec::new();
        for (done, (token, fragment)) in fragments.iter().enumerate() {
            let offer = store.offer(0, &key(1, 1), fragment, *token, &mut taken);
            prop_assert_eq!(offer, if done + 1 == count { Offer::Complete } else { Offer::Held });
        }
        prop_assert_eq!(taken, (0..u32::try_from(count).unwrap()).collect::<Vec<_>>());
        prop_assert!(is_empty(&store));
    }
}
