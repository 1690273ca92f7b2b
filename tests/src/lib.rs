//! The harness (namespaces, TAPs, guests, RabbitMQ, PostgreSQL, Ganeti) and the end-to-end tests
