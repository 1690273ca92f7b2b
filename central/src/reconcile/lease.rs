//! One process does the work: the one whose name is in a row, until a time that is in it.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveValue, ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, QueryFilter,
};

use crate::model::database::insert_once;
use crate::model::entity::lease;
use crate::model::moment;

/// The lease of the reconciler.
pub const RECONCILER: &str = "reconciler";

/// A name that no other process has.
pub fn holder() -> String {
    let chance = getrandom::u64().unwrap_or_default();
    format!("{}:{}:{chance:016x}", host(), std::process::id())
}

/// The name of this host.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Takes or renews a lease for `micros` microseconds; false: another one has it.
///
/// # Errors
/// The database fails.
pub async fn take(
    database: &DatabaseConnection,
    name: &str,
    holder: &str,
    micros: i64,
) -> Result<bool, DbErr> {
    let now = moment::now();
    let until = now.saturating_add(micros);
    let mine_or_over = Condition::any()
        .add(lease::Column::Holder.eq(holder))
        .add(lease::Column::Until.lt(now));
    let done = lease::Entity::update_many()
        .col_expr(lease::Column::Holder, Expr::value(holder))
        .col_expr(lease::Column::Until, Expr::value(until))
        .filter(lease::Column::Name.eq(name))
        .filter(mine_or_over)
        .exec(database)
        .await?;
    if done.rows_affected == 1 {
        return Ok(true);
    }
    let row = lease::ActiveModel {
        name: ActiveValue::Set(name.to_owned()),
        holder: ActiveValue::Set(holder.to_owned()),
        until: ActiveValue::Set(until),
    };
    insert_once(database, row, [lease::Column::Name]).await
}

/// Who has a lease now; none: nobody.
///
/// # Errors
/// The database fails.
pub async fn held(database: &DatabaseConnection, name: &str) -> Result<Option<String>, DbErr> {
    let row = lease::Entity::find_by_id(name).one(database).await?;
    Ok(row
        .filter(|row| row.until > moment::now())
        .map(|row| row.holder))
}

/// Gives a lease back before its time.
///
/// # Errors
/// The database fails.
pub async fn give_back(
    database: &DatabaseConnection,
    name: &str,
    holder: &str,
) -> Result<(), DbErr> {
    lease::Entity::update_many()
        .col_expr(lease::Column::Until, Expr::value(0_i64))
        .filter(lease::Column::Name.eq(name))
        .filter(lease::Column::Holder.eq(holder))
        .exec(database)
        .await?;
    Ok(())
}
