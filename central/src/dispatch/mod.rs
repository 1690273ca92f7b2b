//! From messages to state: what comes from the broker is parsed, put in order and applied.

pub mod acknowledgements;
pub mod cluster;
pub mod confirmation;
pub mod consumer;
pub mod disks;
mod failure;
pub mod heartbeat;
pub mod labels;
pub mod letters;
pub mod machine;
pub mod moving;
pub mod net;
pub mod network;
pub mod nics;
pub mod op;
pub mod outcome;
pub mod progress;
pub mod refusal;
pub mod removal;
pub mod retry;
pub mod route;
