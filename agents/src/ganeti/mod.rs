//! Ganeti's own formats: job files, ssconf, config.data, environments, names, tags.

pub mod names;
