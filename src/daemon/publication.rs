//! How the switch, once changed, reaches the lcores: its snapshot is published whole, and the control side waits until
//! no burst with the one before is under way. Called with the control side's lock held; no lcore waits for any of it.

use weir_shard::epoch::Full;

use crate::lcore::{CallError, Lcore};
use crate::pipeline::{PublishedSnapshot, Snapshot};

/// Turns of all lcores that bring back what they can: two advances of the epoch, and one that was missed.
const GRACE: usize = 3;

/// Why a change did not reach every lcore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing was published.
    #[error(transparent)]
    Full(#[from] Full),
    /// It was published, and the lcore takes it over as soon as it goes on.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Publishes `snapshot`. After success every burst that begins goes by it, and none by an older one is under way. The
/// old ones are dropped here: this one's predecessor now or with the next change.
pub(super) fn publish(
    published: &mut PublishedSnapshot,
    snapshot: Snapshot,
    lcores: &[Lcore],
) -> Result<(), PublishError> {
    for _ in 0..GRACE {
        if published.has_room() {
            break;
        }
        let _ = turn(lcores);
    }
    published.publish(snapshot)?;
    turn(lcores)?;
    published.reclaim();
    Ok(())
}

/// Has every lcore look, between two bursts. The answer of one proves that its burst is over.
fn turn(lcores: &[Lcore]) -> Result<(), CallError> {
    let mut result = Ok(());
    for lcore in lcores {
        if let Err(error) = lcore.call(|polling| polling.worker_mut().take_snapshot()) {
            result = Err(error);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use weir_shard::epoch::MAX_RETIRED;

    use super::*;
    use crate::lcore::testing;
    use crate::switch::Switch;

    fn generation(lcore: &Lcore) -> u64 {
        lcore.call(|polling| polling.worker().snapshot().generation).unwrap()
    }

    #[test]
    fn what_was_published_is_what_every_lcore_goes_by() {
        let mut switch = Switch::default();
        let mut published = PublishedSnapshot::new(switch.snapshot());
        let lcores: Vec<_> = (0..2).map(|_| testing::lcore_with(published.reader(), |_| {})).collect();
        for _ in 0..200 {
            let snapshot = switch.snapshot();
            let wanted = snapshot.generation;
            publish(&mut published, snapshot, &lcores).unwrap();
            assert!(lcores.iter().all(|lcore| generation(lcore) == wanted));
            assert!(published.retired() <= 2, "{}", published.retired());
        }
    }

    #[test]
    fn a_stuck_lcore_is_named_costs_a_bounded_number_and_catches_up_by_itself() {
        let mut switch = Switch::default();
        let mut published = PublishedSnapshot::new(switch.snapshot());
        let mut lcores: Vec<_> = (0..2).map(|_| testing::lcore_with(published.reader(), |_| {})).collect();
        lcores[0].set_patience(Duration::from_millis(20));
        let (release, wait) = channel::<()>();
        lcores[0].order(move |_| wait.recv().unwrap()).unwrap();
        let mut last = 0;
        for _ in 0..MAX_RETIRED {
            let snapshot = switch.snapshot();
            last = snapshot.generation;
            assert_eq!(
                publish(&mut published, snapshot, &lcores),
                Err(PublishError::Call(CallError::Stuck(7)))
            );
            assert_eq!(generation(&lcores[1]), last, "the other has it");
        }
        for _ in 0..3 {
            let refused = publish(&mut published, switch.snapshot(), &lcores);
            assert_eq!(refused, Err(PublishError::Full(Full)));
            assert_eq!(published.retired(), MAX_RETIRED);
        }
        let (ordered, done) = channel();
        lcores[0]
            .order(move |polling| {
                polling.worker_mut().take_snapshot();
                ordered.send(polling.worker().snapshot().generation).unwrap();
            })
            .unwrap();
        release.send(()).unwrap();
        assert_eq!(done.recv(), Ok(last), "nobody has to offer it again");
        lcores[0].set_patience(Duration::from_secs(3600));
        publish(&mut published, switch.snapshot(), &lcores).unwrap();
        for _ in 0..GRACE {
            turn(&lcores).unwrap();
            published.reclaim();
        }
        assert_eq!(published.retired(), 0);
    }
}
