//! The protocol in every order of two threads' steps that the memory model allows (`tools/loom`).

use std::sync::atomic::AtomicUsize as Plain;

use arrayvec::ArrayVec;

use super::*;
use crate::sync::Arc;

/// An entry that tells its count of drops, which is not the protocol's and so not loom's. Loom's cells notice in
/// addition when it is not there any more.
#[derive(Debug)]
struct Letter {
    number: usize,
    dropped: std::sync::Arc<Plain>,
    /// Loom reports it as leaked when the letter is forgotten, and panics when it is dropped twice.
    _tracked: Arc<()>,
}

impl Drop for Letter {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Makes letters and knows how many of them are gone.
#[derive(Clone, Default)]
struct Post(std::sync::Arc<Plain>);

impl Post {
    fn letter(&self, number: usize) -> Letter {
        Letter { number, dropped: std::sync::Arc::clone(&self.0), _tracked: Arc::new(()) }
    }

    fn dropped(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn pair(capacity: usize) -> (Sender<Letter>, Receiver<Letter>) {
    channel(capacity, None).unwrap()
}

fn numbers(letters: &[Letter]) -> Vec<usize> {
    letters.iter().map(|letter| letter.number).collect()
}

/// Receives until the sender has gone.
fn drain(receiver: &mut Receiver<Letter>) -> Vec<usize> {
    let mut all = Vec::new();
    while !receiver.is_disconnected() {
        let mut burst = ArrayVec::<Letter, 2>::new();
        if receiver.receive_burst(&mut burst) == 0 {
            loom::thread::yield_now();
        }
        all.extend(numbers(&burst));
    }
    all
}

#[test]
fn loom_order_is_kept_and_nothing_is_lost_or_doubled() {
    loom::model(|| {
        let (mut sender, mut receiver) = pair(DEFAULT_CAPACITY);
        let post = Post::default();
        let sending = {
            let post = post.clone();
            loom::thread::spawn(move || {
                // More than the ring holds: it gets full and wraps.
                for number in 0..3 {
                    let mut letter = post.letter(number);
                    while let Err(back) = sender.send(letter) {
                        assert_eq!(back.number, number);
                        letter = back;
                        loom::thread::yield_now();
                    }
                }
            })
        };
        assert_eq!(drain(&mut receiver), [0, 1, 2]);
        sending.join().unwrap();
        assert_eq!(post.dropped(), 3);
    });
}

#[test]
fn loom_what_is_refused_is_what_was_not_received() {
    loom::model(|| {
        let (mut sender, mut receiver) = pair(DEFAULT_CAPACITY);
        let post = Post::default();
        let sending = {
            let post = post.clone();
            loom::thread::spawn(move || {
                let mut letters: ArrayVec<_, 3> = (0..3).map(|number| post.letter(number)).collect();
                let sent = sender.send_burst(&mut letters);
                assert_eq!(sent + letters.len(), 3);
                assert!(sent >= DEFAULT_CAPACITY, "there was room for so many");
                assert_eq!(numbers(&letters), (sent..3).collect::<Vec<_>>());
                // There may be room by now.
                sent + sender.send_burst(&mut letters)
            })
        };
        let received = drain(&mut receiver);
        let sent = sending.join().unwrap();
        assert_eq!(received, (0..sent).collect::<Vec<_>>());
        assert_eq!(post.dropped(), 3);
    });
}

#[test]
fn loom_what_is_staged_is_seen_at_once_or_not_at_all() {
    loom::model(|| {
        let (mut sender, mut receiver) = pair(DEFAULT_CAPACITY);
        let post = Post::default();
        let sending = {
            let post = post.clone();
            loom::thread::spawn(move || {
                sender.stage(post.letter(0)).unwrap();
                sender.stage(post.letter(1)).unwrap();
                sender.publish();
                sender
            })
        };
        let mut burst = ArrayVec::<Letter, 4>::new();
        let first = receiver.receive_burst(&mut burst);
        assert!(first == 0 || first == 2, "half a burst was seen");
        let sender = sending.join().unwrap();
        receiver.receive_burst(&mut burst);
        assert_eq!(numbers(&burst), [0, 1]);
        drop(sender);
    });
}

#[test]
fn loom_a_receiver_that_goes_leaves_nothing_behind() {
    loom::model(|| {
        let (mut sender, mut receiver) = pair(DEFAULT_CAPACITY);
        let post = Post::default();
        let receiving = loom::thread::spawn(move || {
            let mut burst = ArrayVec::<Letter, 1>::new();
            receiver.receive_burst(&mut burst);
            burst.len()
        });
        let mut kept = 0;
        for number in 0..3 {
            // Sent, or refused and dropped here: none is anywhere else.
            kept += usize::from(sender.send(post.letter(number)).is_err());
        }
        let received = receiving.join().unwrap();
        assert!(received + kept <= 3);
        assert!(sender.is_disconnected());
        assert_eq!(post.dropped(), 3, "the sender has cleared what the receiver left");
        assert!(sender.send(post.letter(3)).is_err());
        drop(sender);
        assert_eq!(post.dropped(), 4);
    });
}

#[test]
fn loom_both_sides_may_go_at_once() {
    loom::model(|| {
        let (mut sender, mut receiver) = pair(DEFAULT_CAPACITY);
        let post = Post::default();
        sender.send(post.letter(0)).unwrap();
        let sending = {
            let post = post.clone();
            loom::thread::spawn(move || {
                sender.stage(post.letter(1)).unwrap();
                drop(sender);
            })
        };
        let mut burst = ArrayVec::<Letter, 1>::new();
        assert_eq!(receiver.receive_burst(&mut burst), 1);
        drop(receiver);
        sending.join().unwrap();
        drop(burst);
        assert_eq!(post.dropped(), 2);
    });
}
