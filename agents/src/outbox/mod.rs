//! The spool directory in which a message waits for the broker.
