//! Watches the Ganeti job queue and publishes job progress and instance state over AMQP
