use super::*;

impl Next for Vec<u32> {
    fn next(&mut self, index: u32) -> &mut u32 {
        &mut self[index as usize]
    }
}

/// The slots of a list.
fn walk(links: &[u32], mut at: u32) -> Vec<u32> {
    let mut slots = Vec::new();
    while let Some(index) = at.checked_sub(1) {
        assert!(slots.len() < links.len(), "a circle");
        slots.push(index);
        at = links[index as usize];
    }
    slots.sort_unstable();
    slots
}

#[test]
fn a_slot_waits_for_the_guards_that_were_there_and_for_no_others() {
    let (mut links, mut free) = (vec![0; 10], 0);
    let epochs = Epochs::default();
    let (first, second) = (epochs.participate(), epochs.participate());
    let mut limbo = Limbo::new();
    limbo.open(&epochs);
    let guard = first.pin();
    limbo.retire(&mut links, 3);
    limbo.retire(&mut links, 5);
    for _ in 0..100 {
        limbo.tend(&mut links, &mut free);
        // Who comes later does not hold it up, but it does not hurry it either.
        drop(second.pin());
    }
    assert_eq!((limbo.len(), free), (2, 0));
    drop(guard);
    for _ in 0..3 {
        limbo.tend(&mut links, &mut free);
    }
    assert_eq!((limbo.len(), walk(&links, free)), (0, vec![3, 5]));
}

#[test]
fn while_all_chains_wait_the_open_one_grows_and_nothing_is_lost() {
    let count = LENGTH * (CHAINS as u32 + 20) + 7;
    let (mut links, mut free) = (vec![0; count as usize], 0);
    let epochs = Epochs::default();
    let reader = epochs.participate();
    let mut limbo = Limbo::new();
    limbo.open(&epochs);
    let guard = reader.pin();
    for index in 0..count {
        limbo.retire(&mut links, index);
        limbo.reap(&mut links, &mut free);
    }
    assert_eq!((limbo.len(), free), (count, 0));
    assert!(limbo.open.len > 10 * LENGTH);
    drop(guard);
    for _ in 0..8 {
        limbo.tend(&mut links, &mut free);
    }
    assert_eq!((limbo.len(), walk(&links, free)), (0, (0..count).collect()));
}

#[test]
fn a_limbo_that_closes_frees_all_and_hears_nothing_of_what_it_had_sealed() {
    let (mut links, mut free) = (vec![0; 500], 0);
    let epochs = Epochs::default();
    let reader = epochs.participate();
    let mut limbo = Limbo::new();
    limbo.open(&epochs);
    let guard = reader.pin();
    for index in 0..300 {
        limbo.retire(&mut links, index);
    }
    drop(guard);
    limbo.close(&mut links, &mut free);
    assert!(!limbo.is_open());
    assert_eq!((limbo.len(), walk(&links, free)), (0, (0..300).collect()));
    // Readers come again, of the same collector or another.
    limbo.open(&epochs);
    let guard = reader.pin();
    limbo.retire(&mut links, 400);
    for _ in 0..10 {
        limbo.tend(&mut links, &mut free);
    }
    assert_eq!(limbo.len(), 1);
    drop(guard);
}

#[test]
fn an_owner_may_move_to_another_thread_between_its_guards() {
    let (mut links, mut free) = (vec![0; 200], 0);
    let epochs = Epochs::default();
    let mut limbo = Limbo::new();
    limbo.open(&epochs);
    limbo.retire(&mut links, 0);
    let moved = std::thread::spawn(move || {
        for index in 1..200 {
            limbo.retire(&mut links, index);
        }
        for _ in 0..3 {
            limbo.tend(&mut links, &mut free);
        }
        assert_eq!((limbo.len(), walk(&links, free)), (0, (0..200).collect()));
    });
    moved.join().unwrap();
}
