//! What the tracker does to a burst of established connections, stage by stage, and the way from lcore to lcore.

use iai_callgrind::{library_benchmark, library_benchmark_group};
use weir::pipeline::{BURST, HeapFrame, Letter, Letters};
use weir_shard::mailbox::{DEFAULT_CAPACITY, Receiver, Sender, channel};
use weir_shard::{CtState, Reason};

use crate::traffic::{Established, INSIDE, Kind};

#[expect(clippy::needless_pass_by_value, reason = "a teardown gets the box")]
fn were_found(bench: Box<Established>) {
    assert!(bench.lookups.iter().all(|lookup| lookup.new_connection_hash().is_none()));
}

// The first two stages: tuples, hashes, index.
#[library_benchmark]
#[bench::udp_ipv4(args = (Kind::Udp4), setup = Established::new, teardown = were_found)]
#[bench::tcp_ipv4(args = (Kind::Tcp4), setup = Established::new, teardown = were_found)]
#[bench::tcp_ipv6(args = (Kind::Tcp6), setup = Established::new, teardown = were_found)]
fn lookup(mut bench: Box<Established>) -> Box<Established> {
    bench.look_up();
    bench
}

#[expect(clippy::needless_pass_by_value, reason = "a teardown gets the box")]
fn were_established(bench: Box<Established>) {
    assert!(bench.metas.iter().all(|meta| meta.state.has(CtState::EST)));
}

// The third stage.
#[library_benchmark]
#[bench::udp_ipv4(args = (Kind::Udp4), setup = Established::looked_up, teardown = were_established)]
#[bench::tcp_ipv4(args = (Kind::Tcp4), setup = Established::looked_up, teardown = were_established)]
#[bench::tcp_ipv6(args = (Kind::Tcp6), setup = Established::looked_up, teardown = were_established)]
fn track(mut bench: Box<Established>) -> Box<Established> {
    let Established { shard, frames, lookups, action, metas } = &mut *bench;
    for (((frame, layers), lookup), meta) in frames.iter_mut().zip(lookups).zip(metas) {
        shard.execute(1000, frame, layers, lookup, action, meta);
    }
    bench
}

/// Both ends of a mailbox, and a burst on its way.
struct Post {
    sender: Sender<Letter<HeapFrame>>,
    receiver: Receiver<Letter<HeapFrame>>,
    letters: Letters<HeapFrame>,
}

fn post() -> Box<Post> {
    let (sender, receiver) = channel(DEFAULT_CAPACITY, None).unwrap();
    let letter = |frame: Vec<u8>| Letter::Packet {
        port: INSIDE,
        numbering: 0,
        frame: HeapFrame::new(&frame),
        why: Reason::Steered,
    };
    let letters = Kind::Udp4.burst().into_iter().map(letter).collect();
    Box::new(Post { sender, receiver, letters })
}

#[expect(clippy::needless_pass_by_value, reason = "a teardown gets the box")]
fn have_arrived(post: Box<Post>) {
    assert_eq!(post.letters.len(), BURST);
}

#[library_benchmark]
#[bench::burst(args = (), setup = post, teardown = have_arrived)]
fn mailbox(mut post: Box<Post>) -> Box<Post> {
    let Post { sender, receiver, letters } = &mut *post;
    for letter in letters.drain(..) {
        let _ = sender.stage(letter);
    }
    sender.publish();
    receiver.receive_burst(letters);
    post
}

library_benchmark_group!(name = tracker; benchmarks = lookup, track);
library_benchmark_group!(name = mailboxes; benchmarks = mailbox);
