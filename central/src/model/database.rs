//! The connection to the database, and transactions on it.

use std::time::Duration;

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::sqlx::Executor;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ConnectOptions, ConnectionTrait, Database, DatabaseConnection,
    DatabaseTransaction, DbBackend, DbErr, EntityTrait, QuerySelect, RuntimeErr, Select, SqlErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;

use super::availability;
use super::entity::lease;
use super::migration::Migrator;

/// How long a writer waits for another one before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);

/// What every session of MySQL and MariaDB is told, whatever the server's defaults are: that a
/// transaction sees what others have committed meanwhile, as on the other databases; that a value
/// that does not fit is refused and not cut; how long a writer waits for another one; that MariaDB
/// cuts no array of JSON that it gathers, as long as that may be sent (bytes; MySQL never does).
const MYSQL_SESSION: [&str; 4] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
    "SET SESSION innodb_lock_wait_timeout = 15",
    "SET SESSION group_concat_max_len = 67108864",
];

/// The statement that begins every session of PostgreSQL: a writer waits so long for another one.
const POSTGRES_SESSION: &str = "SET lock_timeout = '15s'";

/// The time that a request waits for a connection while all of them are in use, unless the
/// configuration says otherwise.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);

/// How many rows of an answer the thread that reads an SQLite file may be ahead of who wants them:
/// each time it is too far, both change places on the processor.
const SQLITE_ROWS: usize = 1024;

/// How long a connection may be unused before it is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(1);

/// Connects to `url`; an SQLite file that does not exist is made.
///
/// # Errors
/// The database cannot be reached or opened.
pub async fn connect(url: &str, connections: u32) -> Result<DatabaseConnection, DbErr> {
    connect_waiting(url, connections, ACQUIRE_TIMEOUT).await
}

/// As [`connect`]; a request waits at most `acquire_timeout` for a connection.
///
/// # Errors
/// The database cannot be reached or opened.
pub async fn connect_waiting(
    url: &str,
    connections: u32,
    acquire_timeout: Duration,
) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(acquire_timeout)
        .connect_timeout(Duration::from_secs(10))
        .test_before_acquire_if_idle_for(IDLE)
        .sqlx_logging(false)
        .map_sqlx_postgres_pool_opts(|pool| {
            pool.after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute(POSTGRES_SESSION).await?;
                    Ok(())
                })
            })
        })
        .map_sqlx_mysql_pool_opts(|pool| {
            pool.after_connect(|connection, _| {
                Box::pin(async move {
                    for statement in MYSQL_SESSION {
                        connection.execute(statement).await?;
                    }
                    Ok(())
                })
            })
        })
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .create_if_missing(true)
                .foreign_keys(true)
                .busy_timeout(BUSY_TIMEOUT)
                .journal_mode(SqliteJournalMode::Wal)
                // With WAL, NORMAL loses at most the last transactions of a power cut, never
                // the database; the reconciler finds what they had changed.
                .synchronous(SqliteSynchronous::Normal)
                .row_buffer_size(SQLITE_ROWS)
        });
    Database::connect(options).await
}

/// Brings the schema up to date.
///
/// # Errors
/// A step failed; those before it stay applied.
pub async fn migrate(database: &DatabaseConnection) -> Result<(), DbErr> {
    Migrator::up(database, None).await
}

/// How many steps the schema lacks.
///
/// # Errors
/// The database cannot be asked.
pub async fn pending_migrations(database: &DatabaseConnection) -> Result<usize, DbErr> {
    Ok(Migrator::get_pending_migrations(database).await?.len())
}

/// Begins a transaction that will write.
///
/// SQLite takes its write lock now: a transaction that reads first and writes later could
/// not wait for another writer, only fail.
///
/// # Errors
/// The database cannot be reached, or stayed locked.
pub async fn write(database: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let transaction = database
        .begin_with_options(TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        })
        .await?;
    availability::note_write();
    Ok(transaction)
}

/// `query` with a lock on its rows that others may share and no writer passes: what is read stays
/// true until the transaction ends.
///
/// MariaDB has no `FOR SHARE`, and InnoDB turns a shared lock of two transactions that write
/// afterwards into a deadlock: there the lock is exclusive. SQLite has one writer at a time and no
/// locks on rows.
pub fn lock_for_reading<E: EntityTrait>(
    database: &impl ConnectionTrait,
    query: Select<E>,
) -> Select<E> {
    match database.get_database_backend() {
        DbBackend::MySql => query.lock_exclusive(),
        _ => query.lock_shared(),
    }
}

/// Locks `name` until the transaction ends: transactions that lock the same name come one by one.
///
/// # Errors
/// The database fails.
pub async fn serialize(transaction: &DatabaseTransaction, name: &str) -> Result<(), DbErr> {
    let lock = || {
        lease::Entity::find_by_id(name)
            .lock_exclusive()
            .one(transaction)
    };
    if lock().await?.is_some() {
        return Ok(());
    }
    let row = lease::ActiveModel {
        name: ActiveValue::Set(name.to_owned()),
        holder: ActiveValue::Set(String::new()),
        until: ActiveValue::Set(0),
    };
    insert_once(transaction, row, [lease::Column::Name]).await?;
    lock().await?;
    Ok(())
}

/// The time now by the clock of the database, in microseconds since 1970: the same for all hosts,
/// however wrong their clocks are.
pub fn clock(database: &impl ConnectionTrait) -> Expr {
    Expr::cust(match database.get_database_backend() {
        DbBackend::MySql => "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))",
        DbBackend::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
        _ => "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    })
}

/// [`clock`] and `micros` more.
pub fn clock_in(database: &impl ConnectionTrait, micros: i64) -> Expr {
    use sea_orm::sea_query::ExprTrait as _;
    clock(database).add(micros)
}

/// Returns whether a transaction failed only for the order in which others did their work, so that the
/// same once more may succeed: a deadlock or a serialization failure (SQLSTATE class 40).
pub fn is_serialization_failure(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause))) =
        error
    else {
        return false;
    };
    // PostgreSQL: 40001 and 40P01; MySQL and MariaDB: 40001 for error 1213.
    cause
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code == "40001" || code == "40P01")
}

/// Inserts `row` unless a unique index, the one over `key`, has its like already; returns whether
/// it was inserted.
///
/// # Errors
/// The database fails.
pub async fn insert_once<A, K>(
    database: &impl ConnectionTrait,
    row: A,
    key: K,
) -> Result<bool, DbErr>
where
    A: ActiveModelTrait,
    K: IntoIterator<Item = <A::Entity as EntityTrait>::Column>,
{
    let insert = A::Entity::insert(row);
    let inserted = if database.get_database_backend() == DbBackend::MySql {
        // There a row that was found counts like one that was inserted. But there a refused
        // statement does not end the transaction, so it may be refused.
        insert.exec_without_returning(database).await
    } else {
        insert
            .on_conflict(OnConflict::columns(key).do_nothing().to_owned())
            .exec_without_returning(database)
            .await
    };
    match inserted {
        Ok(rows) => Ok(rows > 0),
        Err(DbErr::RecordNotInserted) => Ok(false),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `error` is a unique index doing its work.
pub fn is_duplicate(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}
