//! What the broker has said of the messages under way, in the order in which they left.
//!
//! It confirms what it gave back like what it took, often many at once, and says which it gave
//! back only by giving it back. The client hands what came back to whichever confirm it looks at
//! next: only the message's own number tells whose it is. So an answer counts when no confirm
//! that came before it can still hold a message that came back.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Refusal;

/// The result for a message: `Ok` with the broker's answer; else the reason that none will come.
pub type Confirm = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;

/// The broker's answer to a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reply {
    /// A queue did not take it (`basic.nack`); others may have.
    pub nacked: bool,
    /// The number of a message that came back, perhaps this one, perhaps another.
    pub returned: Option<u64>,
}

/// All confirms are looked at so often, while many are awaited: that costs a little for each.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// So few are looked at each time.
const FEW: usize = 32;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The broker has it.
    Taken,
    /// No queue wanted it.
    Returned,
    /// A queue refused it, as one that is full may; others may have taken it.
    Nacked,
    /// Not sent: it has to go behind others that are parked.
    Behind,
    /// Not sent: the broker refuses all with its key at the moment.
    Held,
    /// Not sent: the broker refuses all that is so long.
    TooLong,
    /// Not taken, and written into one of the folders for such messages.
    Kept,
}

/// The confirms that are awaited.
#[derive(Default)]
pub struct Confirms {
    /// In the order in which the messages left.
    all: VecDeque<Awaited>,
    /// So many of the first have been answered.
    answered: usize,
    /// So many of the first have been answered, and it is certain how.
    certain: usize,
    /// So many have not been answered.
    open: usize,
    /// Numbers of messages that came back.
    returned: HashSet<u64>,
    /// A message came back since all were answered: others may be held by confirms to come.
    unsure: bool,
    looked: Option<Instant>,
}

struct Awaited {
    number: u64,
    state: State,
}

enum State {
    NotSent(Answer),
    Open(Confirm),
    Answered { nacked: bool },
    Failed(Refusal),
}

impl Confirms {
    /// Adds the message of this number, which is on its way (in this order) when this returns.
    pub fn push(&mut self, number: u64, confirm: Confirm) {
        self.all.push_back(Awaited {
            number,
            state: State::Open(confirm),
        });
        self.open = self.open.saturating_add(1);
        // The first poll puts it on its way.
        let last = self.all.len().saturating_sub(1);
        self.look_at(last, &mut Context::from_waker(Waker::noop()));
    }

    /// Adds a message that keeps its place but does not leave, with the answer that it gets.
    pub fn push_not_sent(&mut self, answer: Answer) {
        self.all.push_back(Awaited {
            number: 0,
            state: State::NotSent(answer),
        });
    }

    /// Whether it has to be waited for all answers before anything more is sent: only then is it
    /// certain which messages came back.
    pub fn is_unsure(&self) -> bool {
        self.unsure && self.open > 0
    }

    /// The places of the messages that were sent and have no answer.
    pub fn unanswered(&self) -> impl Iterator<Item = usize> + '_ {
        self.all
            .iter()
            .enumerate()
            .filter(|(_, awaited)| matches!(awaited.state, State::Open(_) | State::Failed(_)))
            .map(|(place, _)| place)
    }

    /// Ready when the oldest message without an answer has one.
    ///
    /// # Errors
    /// It is none: the message is not confirmed and never will be.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let before = self.answered;
        self.advance(context);
        if self.answered > before {
            return Poll::Ready(Ok(()));
        }
        match self.all.get(self.answered).map(|awaited| &awaited.state) {
            Some(State::Failed(reason)) => Poll::Ready(Err(reason.clone())),
            _ => Poll::Pending,
        }
    }

    /// What became of the oldest message, if that is certain.
    pub fn next(&mut self, now: Instant) -> Option<Answer> {
        if self.certain == 0 {
            self.make_certain(now);
        }
        self.certain = self.certain.checked_sub(1)?;
        self.answered = self.answered.saturating_sub(1);
        let awaited = self.all.pop_front()?;
        Some(match awaited.state {
            State::NotSent(answer) => answer,
            _ if self.returned.remove(&awaited.number) => Answer::Returned,
            State::Answered { nacked: true } => Answer::Nacked,
            _ => Answer::Taken,
        })
    }

    fn make_certain(&mut self, now: Instant) {
        let mut context = Context::from_waker(Waker::noop());
        self.advance(&mut context);
        if self.open == 0 {
            self.unsure = false;
            self.certain = self.answered;
            return;
        }
        let early = self
            .looked
            .is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_INTERVAL);
        if self.answered == 0 || self.unsure || (early && self.open > FEW) {
            return;
        }
        // A message that came back is held by a confirm that came before its own, whatever the
        // order in which they left.
        self.looked = Some(now);
        for index in self.answered..self.all.len() {
            self.look_at(index, &mut context);
        }
        if !self.unsure {
            self.certain = self.answered;
        }
    }

    /// Goes on to the first message that is not answered.
    fn advance(&mut self, context: &mut Context<'_>) {
        while self.look_at(self.answered, context) {
            self.answered = self.answered.saturating_add(1);
        }
    }

    /// Whether the message at this place is answered (or was not sent).
    fn look_at(&mut self, index: usize, context: &mut Context<'_>) -> bool {
        let Some(awaited) = self.all.get_mut(index) else {
            return false;
        };
        let confirm = match &mut awaited.state {
            State::NotSent(_) | State::Answered { .. } => return true,
            State::Failed(_) => return false,
            State::Open(confirm) => confirm,
        };
        let Poll::Ready(result) = confirm.as_mut().poll(context) else {
            return false;
        };
        match result {
            Ok(Reply { nacked, returned }) => {
                self.unsure |= returned.is_some();
                self.returned.extend(returned);
                awaited.state = State::Answered { nacked };
                self.open = self.open.saturating_sub(1);
                true
            }
            Err(reason) => {
                awaited.state = State::Failed(reason);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::{Sender, channel};

    type Say = Sender<Result<Reply, Refusal>>;

    struct Broker {
        confirms: Confirms,
        open: Vec<Option<Say>>,
        now: Instant,
    }

    impl Broker {
        /// Messages 0, 1, 2, … are under way.
        fn new(count: u64) -> Self {
            let mut confirms = Confirms::default();
            let open = (0..count)
                .map(|number| {
                    let (sender, receiver) = channel();
                    let confirm = async { receiver.await.unwrap() };
                    confirms.push(number, Box::pin(confirm));
                    Some(sender)
                })
                .collect();
            Self {
                confirms,
                open,
                now: Instant::now(),
            }
        }

        fn confirm(&mut self, number: usize, back: Option<u64>) {
            let sender = self.open[number].take().unwrap();
            let reply = Reply {
                nacked: false,
                returned: back,
            };
            sender.send(Ok(reply)).unwrap();
        }

        fn nack(&mut self, number: usize) {
            let sender = self.open[number].take().unwrap();
            let reply = Reply {
                nacked: true,
                returned: None,
            };
            sender.send(Ok(reply)).unwrap();
        }

        fn answers(&mut self) -> Vec<Answer> {
            self.now += LOOK_INTERVAL;
            std::iter::from_fn(|| self.confirms.next(self.now)).collect()
        }
    }

    #[test]
    fn what_is_confirmed_is_taken_in_the_order_in_which_it_left() {
        let mut broker = Broker::new(3);
        assert_eq!(broker.answers(), []);
        broker.confirm(1, None);
        assert_eq!(broker.answers(), []);
        broker.confirm(0, None);
        assert_eq!(broker.answers(), [Answer::Taken, Answer::Taken]);
        broker.confirms.push_not_sent(Answer::Behind);
        broker.nack(2);
        assert_eq!(broker.answers(), [Answer::Nacked, Answer::Behind]);
        assert_eq!(broker.answers(), []);
    }

    #[test]
    fn what_came_back_is_known_by_its_number_whichever_confirm_held_it() {
        use Answer::{Returned, Taken};
        // 1 and 3 came back; their confirms came last and hold nothing, or the other
        for (first, second, third) in [(0, 2, 1), (2, 0, 3), (3, 0, 1), (3, 2, 1)] {
            let mut broker = Broker::new(4);
            let mut left: HashSet<usize> = (0..4).collect();
            for (number, back) in [(first, Some(1)), (second, Some(3)), (third, None)] {
                left.remove(&number);
                broker.confirm(number, back);
                assert_eq!(broker.answers(), [], "not certain yet");
            }
            for number in left {
                broker.confirm(number, None);
            }
            assert_eq!(broker.answers(), [Taken, Returned, Taken, Returned]);
            assert!(!broker.confirms.is_unsure());
        }
    }

    #[test]
    fn an_answer_waits_for_a_look_at_all_others() {
        let mut broker = Broker::new(100);
        broker.confirm(0, None);
        assert_eq!(broker.answers(), [Answer::Taken]);
        broker.confirm(1, None);
        assert_eq!(broker.confirms.next(broker.now), None, "too early");
        // what came back was 1, and the confirm of 50, which came first, holds it
        broker.confirm(50, Some(1));
        assert_eq!(broker.answers(), []);
        for number in (2..100).filter(|number| *number != 50) {
            broker.confirm(number, None);
        }
        let answers = broker.answers();
        assert_eq!(answers[0], Answer::Returned);
        assert!(answers[1..].iter().all(|answer| *answer == Answer::Taken));
    }

    #[test]
    fn a_failure_is_told_when_all_before_it_are_answered() {
        let mut broker = Broker::new(3);
        let mut context = Context::from_waker(Waker::noop());
        let sender = broker.open[1].take().unwrap();
        sender
            .send(Err(Refusal::Lost("refused".to_owned())))
            .unwrap();
        assert_eq!(broker.confirms.poll(&mut context), Poll::Pending);
        broker.confirm(0, None);
        assert_eq!(broker.confirms.poll(&mut context), Poll::Ready(Ok(())));
        assert_eq!(broker.answers(), [Answer::Taken]);
        let refused = Poll::Ready(Err(Refusal::Lost("refused".to_owned())));
        assert_eq!(broker.confirms.poll(&mut context), refused);
        assert_eq!(broker.answers(), []);
    }
}
