//! The protocol in every order of two threads' steps that the memory model allows (`tools/loom`).

use std::sync::Arc;

use super::*;

fn shard(number: usize) -> ShardNumber {
    ShardNumber::new(number).unwrap()
}

/// Two shards' leases, whose pages are made: that is the standard library's work, which loom does not see.
fn leases(limit: u32) -> Arc<Leases> {
    let leases = Leases::new(2);
    for number in 0..2 {
        assert!(leases.holder(shard(number)).is_some());
    }
    leases.set_limit(Scope::All, Some(limit));
    Arc::new(leases)
}

fn spawn<R: 'static>(
    leases: &Arc<Leases>,
    body: impl FnOnce(&Leases) -> R + 'static,
) -> loom::thread::JoinHandle<R> {
    let leases = Arc::clone(leases);
    loom::thread::spawn(move || body(&leases))
}

#[test]
fn loom_the_last_unit_goes_to_exactly_one_of_two() {
    loom::model(|| {
        let leases = leases(1);
        let other = spawn(&leases, |leases| leases.take(shard(1), Scope::All));
        let own = leases.take(shard(0), Scope::All);
        assert!(own ^ other.join().unwrap());
        assert_eq!(leases.figures(Scope::All), (1, 0));
    });
}

#[test]
fn loom_a_unit_in_a_third_slack_goes_to_exactly_one_of_two() {
    loom::model(|| {
        let leases = leases(1);
        assert!(leases.take(shard(1), Scope::All));
        leases.give(shard(1), Scope::All);
        let other = spawn(&leases, |leases| leases.take(shard(1), Scope::All));
        let own = leases.take(shard(0), Scope::All);
        assert!(own ^ other.join().unwrap());
        assert_eq!(leases.figures(Scope::All), (1, 0));
    });
}

#[test]
fn loom_what_is_given_back_while_another_looks_is_not_lost() {
    loom::model(|| {
        let leases = leases(1);
        assert!(leases.take(shard(0), Scope::All));
        let other = spawn(&leases, |leases| leases.take(shard(1), Scope::All));
        leases.give(shard(0), Scope::All);
        let other = other.join().unwrap();
        // Early or late, the other one had it or it is there.
        assert_eq!(leases.take(shard(0), Scope::All), !other);
        assert_eq!(leases.figures(Scope::All), (1, 0));
    });
}

#[test]
fn loom_two_of_two_are_enough_for_two_that_take_and_give() {
    loom::model(|| {
        let leases = leases(2);
        let turn = |leases: &Leases, number| {
            assert!(leases.take(shard(number), Scope::All));
            leases.give(shard(number), Scope::All);
        };
        let other = spawn(&leases, move |leases| turn(leases, 1));
        turn(&leases, 0);
        other.join().unwrap();
        let (taken, slack) = leases.figures(Scope::All);
        assert_eq!(taken, slack);
    });
}

#[test]
fn loom_a_limit_that_is_lowered_meanwhile_keeps_the_sum() {
    loom::model(|| {
        let leases = leases(8);
        // A batch of two: one is used, one is slack.
        assert!(leases.take(shard(0), Scope::All));
        let other = spawn(&leases, |leases| leases.take(shard(1), Scope::All));
        leases.set_limit(Scope::All, Some(1));
        assert!(!leases.take(shard(0), Scope::All), "one is used already");
        let used = 1 + u32::from(other.join().unwrap());
        let (taken, slack) = leases.figures(Scope::All);
        assert_eq!(taken, slack + used);
    });
}
