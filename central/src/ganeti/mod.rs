//! Asking Ganeti to do things: the RAPI client, what is asked and how it is kept, which cluster
//! is asked, which addresses a NIC gets.

pub mod addresses;
pub mod allocation;
pub mod capacity;
pub mod certificate;
pub mod clients;
pub mod guard;
pub mod image;
pub mod intent;
pub mod job;
pub mod label;
pub mod measurement;
pub mod naming;
pub mod networks;
pub mod pools;
pub mod rapi;
pub mod request;
pub mod stamp;
pub mod submission;
pub mod tls;
pub mod traces;
