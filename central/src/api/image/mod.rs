//! The image service: which images there are. Their data is elsewhere.

pub mod register;
pub mod v1;
pub mod v2;
