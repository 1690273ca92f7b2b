//! The schema, step by step.

mod m0001_first;
mod m0002_quotas;
mod m0003_reconciler;
mod m0004_servers;
mod m0005_address_history;
mod m0006_roles;
mod m0007_restores;
mod m0008_tokens;
mod m0009_limits;
mod table;

use sea_orm_migration::prelude::*;

/// All the steps, in order.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_first::First),
            Box::new(m0002_quotas::Quotas),
            Box::new(m0003_reconciler::Reconciler),
            Box::new(m0004_servers::Servers),
            Box::new(m0005_address_history::AddressHistory),
            Box::new(m0006_roles::Roles),
            Box::new(m0007_restores::Restores),
            Box::new(m0008_tokens::Tokens),
            Box::new(m0009_limits::Limits),
        ]
    }
}
