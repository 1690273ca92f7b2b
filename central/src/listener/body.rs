//! Bodies: a request's has to go on, and an answer's end is the beginning of what comes next.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::table::{Phase, State};

/// The slowest that a body may come in the long run, in bytes per second.
const SLOWEST: u64 = 1024;

/// A body did not come in time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body did not come in time")]
struct TooLate;

/// True if the body of a request, which has this as an extension, was given up.
#[derive(Debug, Clone, Default)]
pub struct Late(Arc<AtomicBool>);

impl Late {
    pub fn is_late(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The body of a request: it may stand still for a while, and comes at [`SLOWEST`] at least.
pub struct RequestBody {
    body: Body,
    state: Arc<State>,
    start: Instant,
    patience: Duration,
    bytes: u64,
    timer: Pin<Box<Sleep>>,
    late: Late,
}

impl RequestBody {
    /// `late` becomes true if it does not come in time.
    pub fn new(body: Body, state: Arc<State>, patience: Duration, late: Late) -> Self {
        let start = Instant::now();
        Self {
            body,
            state,
            start,
            patience,
            bytes: 0,
            timer: Box::pin(sleep_until(start + patience)),
            late,
        }
    }

    /// By when more has to come: what came has bought time.
    fn deadline(&self) -> Instant {
        let bought = Duration::from_millis(self.bytes.saturating_mul(1000) / SLOWEST);
        let bought = self.start + self.patience + bought;
        // A fast beginning does not allow a long silence.
        bought.min(Instant::now() + self.patience)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                let length = u64::try_from(length).unwrap_or(u64::MAX);
                self.bytes = self.bytes.saturating_add(length);
                let deadline = self.deadline();
                self.timer.as_mut().reset(deadline);
                self.state.change(Phase::Body, Phase::Answer);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                self.state.change(Phase::Body, Phase::Answer);
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.state.change(Phase::Answer, Phase::Body);
                if self.timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.late.0.store(true, Ordering::SeqCst);
                Poll::Ready(Some(Err(TooLate.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer.
pub struct AnswerBody {
    body: Body,
    state: Arc<State>,
}

impl AnswerBody {
    pub fn new(body: Body, state: Arc<State>) -> Self {
        Self { body, state }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    /// All of it is in the hands of the connection, or never will be.
    fn drop(&mut self) {
        self.state.enter(Phase::Idle);
    }
}
