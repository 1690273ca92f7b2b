//! The centre of a Ganeti cloud: an OpenStack-compatible API, and the dispatcher that turns the
//! messages of the agents into state. It drives any number of Ganeti clusters over RAPI.
//!
//! - `api`: HTTP: identity, compute, network, image; two dialects over the same handlers
//! - `model`: the tables
//! - `ganeti`: what is asked of Ganeti, and how it is made certain that it is asked once
//! - `dispatch`: messages, put in order and applied
//! - `listener`: the connections of the API, and how much of them there may be
//! - `reconcile`: what repairs state when events could not
//! - `metrics`: what Prometheus sees
//! - [`admin`]: what operators do from a shell
//! - [`arenas`]: how little memory the allocator keeps

pub mod admin;
mod api;
pub mod arenas;
pub mod arguments;
pub mod config;
mod dispatch;
mod ganeti;
mod listener;
mod metrics;
mod model;
mod reconcile;
pub mod serve;
