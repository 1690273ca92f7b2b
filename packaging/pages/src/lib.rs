//! What the packages have beside the programs, generated from the same source as the
//! programs: man pages and completions from the command line definitions, pages of the
//! configuration files from the commented defaults, copyright files from the lock file.

pub mod completion;
pub mod config_page;
pub mod copyright;
pub mod man;
pub mod program;
mod spdx;
mod text;
