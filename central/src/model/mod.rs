//! What is kept, and where: the tables, the schema's history, the connection, which of two events is the newer one.

pub mod availability;
pub mod changes;
pub mod database;
pub mod entity;
pub mod history;
pub mod id;
pub mod ids;
pub mod migration;
pub mod moment;
pub mod register;
