//! Which deliveries of a channel are done, and with how few frames to say so.
//!
//! A quorum queue writes down every acknowledgement for itself: one for many deliveries costs it
//! as much as one for one.

use std::collections::BTreeSet;

/// How many deliveries are acknowledged at once, at most, if they are done fast.
pub const MANY: usize = 16;

/// An acknowledgement, as AMQP has it (0-9-1, `basic.ack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    pub tag: u64,
    /// Also of all before.
    pub multiple: bool,
}

/// The deliveries of a channel, of which the broker numbers the first 1.
#[derive(Debug, Default)]
pub struct Acknowledgements {
    /// All up to this one are acknowledged.
    before: u64,
    /// Done since, and not acknowledged.
    done: BTreeSet<u64>,
    /// Acknowledged by themselves: one before them is not done.
    alone: BTreeSet<u64>,
}

impl Acknowledgements {
    /// A delivery is done.
    pub fn add(&mut self, tag: u64) {
        self.done.insert(tag);
    }

    /// How many are done and not acknowledged.
    pub fn waiting(&self) -> usize {
        self.done.len()
    }

    /// What is to be told the broker now, after which all that are done are acknowledged: one
    /// that is not holds up none that came later.
    pub fn take(&mut self) -> Vec<Acknowledgement> {
        let mut frames = Vec::new();
        let mut last = self.before;
        let mut newly = None;
        loop {
            let next = last.saturating_add(1);
            if self.done.remove(&next) {
                newly = Some(next);
            } else if !self.alone.remove(&next) {
                break;
            }
            last = next;
        }
        self.before = last;
        frames.extend(newly.map(|tag| Acknowledgement {
            tag,
            multiple: true,
        }));
        for tag in std::mem::take(&mut self.done) {
            self.alone.insert(tag);
            frames.push(Acknowledgement {
                tag,
                multiple: false,
            });
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_frame_is_enough_for_those_without_a_gap() {
        let mut acknowledgements = Acknowledgements::default();
        for tag in [2, 1, 3, 5] {
            acknowledgements.add(tag);
        }
        let frame = |tag, multiple| Acknowledgement { tag, multiple };
        assert_eq!(acknowledgements.take(), [frame(3, true), frame(5, false)]);
        assert_eq!(acknowledgements.take(), []);
        acknowledgements.add(4);
        // Five is acknowledged already: a broker closes the channel on a second time.
        assert_eq!(acknowledgements.take(), [frame(4, true)]);
        acknowledgements.add(6);
        assert_eq!(acknowledgements.take(), [frame(6, true)]);
    }

    proptest! {
        /// In whatever order they are done, and whenever that is told: each is acknowledged
        /// once, none before it is done, and at the end nothing is remembered of any.
        #[test]
        fn each_is_acknowledged_once(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            flushes in prop::collection::vec(any::<bool>(), 40),
        ) {
            let mut acknowledgements = Acknowledgements::default();
            let (mut done, mut told) = (BTreeSet::new(), BTreeSet::new());
            for (tag, flush) in order.into_iter().zip(flushes.into_iter().chain([true])) {
                acknowledgements.add(tag);
                done.insert(tag);
                if !flush && done.len() < 40 {
                    continue;
                }
                for frame in acknowledgements.take() {
                    prop_assert!(told.insert(frame.tag));
                    if frame.multiple {
                        told.extend(1..frame.tag);
                    }
                }
                prop_assert_eq!(&told, &done);
                prop_assert_eq!(acknowledgements.waiting(), 0);
            }
            prop_assert_eq!(acknowledgements.before, 40);
            prop_assert!(acknowledgements.alone.is_empty());
        }
    }
}
