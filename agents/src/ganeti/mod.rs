//! Ganeti's own formats: job files, ssconf, config.data, environments, names, tags.

pub mod config_data;
pub mod firewall;
pub mod hook_environment;
pub mod job;
pub mod names;
pub mod nic_environment;
pub mod ssconf;
pub mod tags;
