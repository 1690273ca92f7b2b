//! `snf-progress-monitor`: from what an image deployment tells to messages in the outbox.

mod grammar;
mod monitor;
mod signals;
mod stream;
mod text;
mod throttle;

pub use monitor::{MonitorError, run};
pub use signals::EndSignals;
pub use stream::{Piece, Splitter};
pub use throttle::Throttle;
