//! The connection to the database, and transactions on it.

use std::time::Duration;

use sea_orm::sea_query::OnConflict;
use sea_orm::sqlx::Executor;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ActiveModelTrait, ConnectOptions, ConnectionTrait, Database, DatabaseConnection,
    DatabaseTransaction, DbBackend, DbErr, EntityTrait, SqlErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;

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
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(20))
        .connect_timeout(Duration::from_secs(10))
        .test_before_acquire_if_idle_for(IDLE)
        .sqlx_logging(false)
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
    database
        .begin_with_options(TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        })
        .await
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
