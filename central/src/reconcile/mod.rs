//! Keeping the database right where events could not: without a broker, after losses.

pub mod polling;
