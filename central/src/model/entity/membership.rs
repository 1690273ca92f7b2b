//! Memberships: the users of the projects, and their roles there.

use sea_orm::entity::prelude::*;

/// The role of a user in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Uses the project.
    Member,
    /// Administers the project.
    Manager,
}

impl Role {
    /// The role's name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Manager => "manager",
        }
    }

    /// Reads the role's name in the database: an older version's `project join --admin` writes
    /// `admin`, and a name that is not known permits the least.
    pub fn parse(name: &str) -> Self {
        match name {
            "manager" | "admin" => Self::Manager,
            _ => Self::Member,
        }
    }
}

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "memberships")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub project_id: String,
    /// [`Role::name`]
    pub role: String,
}

impl Model {
    /// The role, whatever the column holds.
    pub fn role(&self) -> Role {
        Role::parse(&self.role)
    }
}

impl ActiveModelBehavior for ActiveModel {}
