//! Who people are: passwords, tokens, the catalog of services.

pub mod attempts;
mod catalog;
pub mod external;
pub mod hashing;
pub mod issue;
pub mod keystone;
pub mod login;
pub mod memberships;
pub mod passwords;
pub mod v2;
pub mod v3;
