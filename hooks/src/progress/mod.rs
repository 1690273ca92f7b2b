//! `snf-progress-monitor`: from what an image deployment tells to messages in the outbox.

mod monitor;
mod stream;
mod throttle;

pub use monitor::{MonitorError, run};
pub use stream::{Piece, Splitter};
pub use throttle::Throttle;
