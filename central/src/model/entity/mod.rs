//! One module for each table.
//!
//! Times are microseconds since 1970 (UTC). A row with `deleted_at` is history: it is shown to
//! `changes-since` and by id, and to nobody else.

pub mod address;
pub mod address_history;
pub mod backend;
pub mod backend_network;
pub mod cluster_mark;
pub mod diagnostic;
pub mod flavor;
pub mod image;
pub mod installation;
pub mod intent;
pub mod keypair;
pub mod lease;
pub mod membership;
pub mod network;
pub mod one_shot;
pub mod pass;
pub mod pool_value;
pub mod port;
pub mod project;
pub mod project_limit;
pub mod quota;
pub mod repair;
pub mod server;
pub mod server_metadata;
pub mod server_tag;
pub mod subnet;
pub mod token;
pub mod user;
pub mod volume;
