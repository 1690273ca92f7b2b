//! One process does the work: the one whose name is in a row, until a time that is in it.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue, ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, QueryFilter,
};

use crate::model::database::{clock, clock_in, insert_once};
use crate::model::entity::lease;

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

/// Takes or renews a lease for `micros` microseconds by the clock of the database; false: another
/// one has it.
///
/// # Errors
/// The database fails.
pub async fn take(
    database: &DatabaseConnection,
    name: &str,
    holder: &str,
    micros: i64,
) -> Result<bool, DbErr> {
    let until = clock_in(database, micros);
    // Nobody takes a lease for much longer than others do: an end that is far off was written by a
    // clock that was ahead, and would keep everybody out until then.
    let far = clock_in(database, micros.saturating_mul(2));
    let mine_or_over = Condition::any()
        .add(lease::Column::Holder.eq(holder))
        .add(Expr::col(lease::Column::Until).lt(clock(database)))
        .add(Expr::col(lease::Column::Until).gt(far));
    let done = lease::Entity::update_many()
        .col_expr(lease::Column::Holder, Expr::value(holder))
        .col_expr(lease::Column::Until, until.clone())
        .filter(lease::Column::Name.eq(name))
        .filter(mine_or_over)
        .exec(database)
        .await?;
    if done.rows_affected == 1 {
        return Ok(true);
    }
    // The first time there is no row. It begins as a lease that is over, which is then taken.
    let row = lease::ActiveModel {
        name: ActiveValue::Set(name.to_owned()),
        holder: ActiveValue::Set(holder.to_owned()),
        until: ActiveValue::Set(0),
    };
    if !insert_once(database, row, [lease::Column::Name]).await? {
        return Ok(false);
    }
    let done = lease::Entity::update_many()
        .col_expr(lease::Column::Until, until)
        .filter(lease::Column::Name.eq(name))
        .filter(lease::Column::Holder.eq(holder))
        .exec(database)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Who has a lease now; none: nobody.
///
/// # Errors
/// The database fails.
pub async fn held(database: &DatabaseConnection, name: &str) -> Result<Option<String>, DbErr> {
    let row = lease::Entity::find_by_id(name)
        .filter(Expr::col(lease::Column::Until).gt(clock(database)))
        .one(database)
        .await?;
    Ok(row.map(|row| row.holder))
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

#[cfg(test)]
mod tests {
    use harness::mariadb::MariaDb;
    use harness::postgres::Postgres;
    use harness::scratch::Scratch;
    use sea_orm::{ConnectionTrait, Statement};

    use super::*;
    use crate::model::{database, moment};

    fn free_port() -> u16 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    }

    /// A lease on a database: whatever this host's clock says, and whatever a clock said that was ahead.
    async fn a_lease_follows_the_clock_of(database: &DatabaseConnection) {
        let minute = 60_000_000;
        let mine = async |holder: &str| take(database, "work", holder, minute).await.unwrap();
        assert!(mine("one").await);
        assert!(mine("one").await);
        assert!(!mine("other").await);
        assert_eq!(
            held(database, "work").await.unwrap().as_deref(),
            Some("one")
        );
        let until = async || {
            let query = "SELECT until FROM leases WHERE name = 'work'";
            let backend = database.get_database_backend();
            let row = database
                .query_one_raw(Statement::from_string(backend, query))
                .await
                .unwrap();
            row.unwrap().try_get_by_index::<i64>(0).unwrap()
        };
        // Here both clocks are one.
        let left = until().await - moment::now();
        assert!((50_000_000..=minute).contains(&left), "{left}");
        // A clock that was a day ahead wrote this.
        let day = moment::now() + 24 * 3600 * 1_000_000;
        let set = async |until: i64| {
            let statement = format!("UPDATE leases SET until = {until}, holder = 'dead'");
            database.execute_unprepared(&statement).await.unwrap();
        };
        set(day).await;
        assert!(mine("other").await);
        // And this a moment ago.
        set(moment::now() - 1_000_000).await;
        assert!(mine("one").await);
        give_back(database, "work", "one").await.unwrap();
        assert_eq!(held(database, "work").await.unwrap(), None);
        assert!(mine("other").await);
        // Many at once: one of them.
        give_back(database, "work", "other").await.unwrap();
        let names: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
        let taken = futures_util::future::join_all(names.iter().map(|name| mine(name))).await;
        assert_eq!(taken.iter().filter(|mine| **mine).count(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn leases_follow_the_clock_of_the_database_everywhere() {
        let scratch = Scratch::new("central-leases").unwrap();
        let postgres = Postgres::start(&scratch.join("pg"), free_port()).unwrap();
        let mariadb = MariaDb::start(&scratch.join("db"), free_port()).unwrap();
        let file = format!("sqlite://{}", scratch.join("central.db").display());
        for url in [file, postgres.uri(), mariadb.uri()] {
            let database = database::connect(&url, 4).await.unwrap();
            database::migrate(&database).await.unwrap();
            a_lease_follows_the_clock_of(&database).await;
        }
    }
}
