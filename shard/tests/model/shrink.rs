//! Leaves out steps that a difference does not need (Zeller and Hildebrandt, "Simplifying and Isolating
//! Failure-Inducing Input", 2002): halves, quarters, and so on, until no single one can go.

use crate::random::{Op, Sent, Step};
use crate::run::{Setting, run};

/// More than a burst has packets, and a packet ct actions.
const MOST: usize = 8;

/// Fewest steps with a difference, whichever it is.
pub fn fewest(setting: &Setting, steps: &[Step]) -> Vec<Step> {
    let differs = |steps: &[Step]| run(setting, steps, &mut String::new()).is_err();
    let mut left = steps.to_vec();
    // Nothing behind the difference is needed.
    let (mut short, mut long) = (0, left.len());
    while short + 1 < long {
        let middle = usize::midpoint(short, long);
        if differs(&left[..middle]) { long = middle } else { short = middle }
    }
    left.truncate(long);
    let mut chunk = left.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        let mut found = false;
        while at < left.len() {
            let end = (at + chunk).min(left.len());
            let without = [&left[..at], &left[end..]].concat();
            if differs(&without) {
                left = without;
                found = true;
            } else {
                at = end;
            }
        }
        if !found || chunk > 1 {
            chunk /= 2;
        }
    }
    for at in 0..left.len() {
        shorten(&mut left, at, &differs);
    }
    left
}

/// Leaves out packets of a burst, and ct actions of a packet.
fn shorten(steps: &mut Vec<Step>, at: usize, differs: &dyn Fn(&[Step]) -> bool) {
    let mut attempt = |change: &dyn Fn(&mut Vec<Sent>)| {
        let mut changed = steps.clone();
        if let Some(Step::Burst { packets, .. }) = changed.get_mut(at) {
            change(packets);
            if differs(&changed) {
                *steps = changed;
            }
        }
    };
    for packet in (0..MOST).rev() {
        attempt(&|packets| {
            if packet < packets.len() && packets.len() > 1 {
                packets.remove(packet);
            }
        });
        for op in (0..MOST).rev() {
            attempt(&|packets| {
                if let Some(ops) = packets.get_mut(packet).map(|packet| &mut packet.ops)
                    && op < ops.len()
                    && ops.iter().enumerate().any(|(at, other)| at != op && matches!(other, Op::Ct(_)))
                {
                    ops.remove(op);
                }
            });
        }
    }
}

/// The difference with as few steps as it takes, and how to see it again.
pub fn report(seed: u64, setting: &Setting, steps: &[Step], difference: &str) -> String {
    let fewest = fewest(setting, steps);
    let mut story = String::new();
    let again = run(setting, &fewest, &mut story).err().unwrap_or_default();
    format!(
        "seed {seed} (again: WEIR_MODEL_SEED={seed} WEIR_MODEL_STEPS=1)\n{difference}\n\n\
         with the {} steps that it takes:\n{setting:?}\n{story}{again}",
        fewest.len()
    )
}
