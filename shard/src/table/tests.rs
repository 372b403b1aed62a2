use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn v4(n: u32, zone: u16) -> Tuple {
    let [a, b, c, d] = n.to_be_bytes();
    Tuple::new([a, b, c, d].into(), [192, 0, 2, 1].into(), 1000, 80, 17, zone).unwrap()
}

fn v6(n: u32, zone: u16) -> Tuple {
    let mut src = [0u8; 16];
    src[12..].copy_from_slice(&n.to_be_bytes());
    Tuple::new(src.into(), [7; 16].into(), 1000, 80, 17, zone).unwrap()
}

fn find(table: &Table, tuple: &Tuple) -> Option<Slot> {
    table.find(tuple, table.hash(tuple))
}

fn insert(table: &mut Table, original: &Tuple, reply: &Tuple) -> Result<u32, Full> {
    let index = table.insert((original, table.hash(original)), (reply, table.hash(reply)))?;
    table.publish(index, original);
    Ok(index)
}

#[test]
fn a_table_takes_as_many_connections_as_it_was_made_for_and_not_one_more() {
    for capacity in [1u32, 2, 7, 100, 20_000] {
        let mut table = Table::new(capacity, true, Placing::default(), [3, 4]).unwrap();
        for n in 0..capacity {
            let tuple = v4(n, 0);
            insert(&mut table, &tuple, &tuple.reversed()).unwrap();
        }
        assert_eq!(table.len(), capacity);
        let tuple = v4(capacity, 0);
        assert_eq!(insert(&mut table, &tuple, &tuple.reversed()), Err(Full));
        assert_eq!(find(&table, &tuple), None);
        for n in 0..capacity {
            let slot = find(&table, &v4(n, 0)).unwrap();
            let back = find(&table, &v4(n, 0).reversed()).unwrap();
            assert_eq!((slot.direction(), back.direction()), (Direction::Original, Direction::Reply));
            assert_eq!(slot.index(), back.index());
            assert_eq!(table.tuple(slot.index(), Direction::Reply), v4(n, 0).reversed());
        }
    }
}

#[test]
fn removal_leaves_no_trace_in_the_index() {
    let mut table = Table::new(5_000, true, Placing::default(), [3, 4]).unwrap();
    for n in 0..5_000 {
        insert(&mut table, &v6(n, 1), &v6(n, 1).reversed()).unwrap();
    }
    for index in 0..5_000 {
        table.remove(index);
        table.remove(index);
    }
    assert_eq!(table.len(), 0);
    assert!(table.buckets.iter().all(|bucket| bucket.tags == [0; LANES] && bucket.overflow == 0));
}

#[test]
fn nearly_all_entries_of_a_full_table_are_at_home() {
    let mut table = Table::new(50_000, true, Placing::default(), [5, 6]).unwrap();
    for n in 0..50_000 {
        insert(&mut table, &v4(n, 0), &v4(n, 0).reversed()).unwrap();
    }
    let passed: u32 = table.buckets.iter().map(|bucket| u32::from(bucket.overflow)).sum();
    assert!(passed < 100_000 / 10, "{passed} steps from home for 100000 entries");
}

#[test]
fn a_tuple_that_is_its_own_reply_is_found_and_removed_as_original() {
    let mut table = Table::new(4, true, Placing::default(), [1, 2]).unwrap();
    let tuple = Tuple::new([1, 1, 1, 1].into(), [1, 1, 1, 1].into(), 5, 5, 17, 0).unwrap();
    assert_eq!(tuple, tuple.reversed());
    let index = insert(&mut table, &tuple, &tuple).unwrap();
    assert_eq!(find(&table, &tuple), Some(Slot::new(index, Direction::Original)));
    table.remove(index);
    assert_eq!(find(&table, &tuple), None);
    assert!(table.buckets.iter().all(|bucket| bucket.tags == [0; LANES]));
}

#[test]
fn a_slot_counts_the_generations_that_lived_in_it() {
    let mut table = Table::new(4, true, Placing::default(), [1, 2]).unwrap();
    let index = insert(&mut table, &v4(1, 0), &v4(1, 0).reversed()).unwrap();
    let generation = table.connection(index).generation();
    table.remove(index);
    assert_eq!(insert(&mut table, &v4(2, 0), &v4(2, 0).reversed()), Ok(index));
    assert_eq!(table.connection(index).generation(), generation + 1);
}

#[test]
fn slots_that_were_freed_serve_again_each_once() {
    const CAPACITY: u32 = 200;
    let mut table = Table::new(CAPACITY, true, Placing::default(), [1, 2]).unwrap();
    let mut slots: Vec<u32> = Vec::new();
    for round in 0..5u32 {
        for n in 0..CAPACITY {
            assert!(table.has_free_slot());
            let tuple = v4(round * CAPACITY + n, 0);
            slots.push(insert(&mut table, &tuple, &tuple.reversed()).unwrap());
        }
        assert!(!table.has_free_slot());
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), CAPACITY as usize, "no slot twice");
        assert_eq!(table.used(), CAPACITY, "no fresh one while there are others");
        // Some stay, others go in an order of their own.
        for index in slots.drain(..).filter(|index| index % 7 != round) {
            table.remove(index);
        }
        slots.extend((0..CAPACITY).filter(|index| index % 7 == round));
        for index in slots.drain(..).rev() {
            table.remove(index);
        }
        assert_eq!(table.len(), 0);
    }
}

/// Issue 5: at most 128 bytes an IPv4 connection, with its share of the index and its counters and without what is cold.
/// The arrays are reserved, and no page of them is touched here.
#[test]
fn an_ipv4_connection_takes_128_bytes_at_most_that_packets_touch_and_ten_million_fit_three_gigabytes() {
    // A hot line holds both directions' keys in its first half, and the account has no padding.
    assert_eq!((size_of::<Connection>(), size_of::<Account>(), size_of::<Bucket>()), (64, 32, 64));
    for capacity in [100_000u32, 1_000_000, 3_000_000, 10_000_000] {
        let table = Table::new(capacity, true, Placing::default(), [1, 2]).unwrap();
        let bytes = |span: Span| span.bytes as f64;
        let index = bytes(table.buckets.span()) / f64::from(capacity);
        let [hot, addresses6, cold, accounts, parents] = table.memory.spans();
        let slots = f64::from(capacity + RESERVE);
        let (hot, account) = (bytes(hot) / slots, bytes(accounts) / slots);
        assert!(index + hot + account <= 128.0, "{index} + {hot} + {account} bytes with room for {capacity}");
        assert!(index < 23.0, "{index} bytes of index");
        let all: f64 = table.spans().into_iter().map(bytes).sum();
        let used = all - bytes(addresses6) - bytes(parents);
        assert_eq!(bytes(cold) / slots + size_of::<Place>() as f64, 48.0, "cold, and the wheel's");
        // With the slots that wait for readers.
        let each = used / f64::from(capacity);
        assert!(capacity < 1_000_000 || each <= 167.0 + 144.0 * f64::from(RESERVE) / f64::from(capacity));
        if capacity == 10_000_000 {
            assert!(used < 1.75e9, "{used} bytes without what IPv6 needs");
        }
    }
}

#[test]
fn a_capacity_of_nothing_or_of_billions_is_refused() {
    assert!(matches!(Table::new(0, true, Placing::default(), [0; 2]), Err(TableError::Capacity(0))));
    assert!(matches!(Table::new(u32::MAX, true, Placing::default(), [0; 2]), Err(TableError::Capacity(_))));
}

#[derive(Clone, Debug)]
enum Step {
    Insert { original: u32, reply: u32, ipv6: bool, zone: u16 },
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u32..60, 0u32..60, any::<bool>(), 0u16..2)
            .prop_map(|(original, reply, ipv6, zone)| Step::Insert { original, reply, ipv6, zone }),
        2 => any::<usize>().prop_map(Step::Remove),
    ]
}

proptest! {
    /// The model: a sorted map from tuple to connection and direction.
    #[test]
    fn look_ups_find_what_a_sorted_map_holds(
        capacity in 1u32..40,
        secret: [u64; 2],
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut table = Table::new(capacity, true, Placing::default(), secret).unwrap();
        let mut model: BTreeMap<Tuple, Slot> = BTreeMap::new();
        let mut live: Vec<u32> = Vec::new();
        for step in steps {
            match step {
                Step::Insert { original, reply, ipv6, zone } => {
                    let make = if ipv6 { v6 } else { v4 };
                    // Replies of other connections may be this one's original and the other way round.
                    let (original, reply) = (make(original, zone), make(reply, zone));
                    if model.contains_key(&original) || model.contains_key(&reply) {
                        continue;
                    }
                    match insert(&mut table, &original, &reply) {
                        Ok(index) => {
                            prop_assert!(!live.contains(&index));
                            live.push(index);
                            model.insert(reply, Slot::new(index, Direction::Reply));
                            model.insert(original, Slot::new(index, Direction::Original));
                        }
                        Err(Full) => prop_assert_eq!(live.len(), capacity as usize),
                    }
                }
                Step::Remove(pick) => {
                    if live.is_empty() {
                        continue;
                    }
                    let index = live.swap_remove(pick % live.len());
                    table.remove(index);
                    model.retain(|_, slot| slot.index() != index);
                }
            }
            prop_assert_eq!(table.len() as usize, live.len());
            for n in 0..60 {
                for zone in 0..2 {
                    for tuple in [v4(n, zone), v6(n, zone)] {
                        prop_assert_eq!(find(&table, &tuple), model.get(&tuple).copied());
                    }
                }
            }
        }
    }
}
