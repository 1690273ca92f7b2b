//! The AMQP messages and their routing keys.
