//! The numbers that names in Ganeti are made of: how far they have been given out, and giving
//! out no number twice.

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, QueryResult, Statement, TransactionTrait,
};

/// The highest number of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ids {
    pub server: i64,
    pub network: i64,
    pub nic: i64,
    pub volume: i64,
}

/// The tables whose numbers are in names, in the order of [`Ids::values`].
const TABLES: [&str; 4] = ["servers", "networks", "ports", "volumes"];

/// A number that no installation comes to: a name with a higher one was made up by somebody, and
/// numbers that go on behind it would soon be at their end.
const REACHABLE: i64 = 1 << 48;

impl Ids {
    /// All four, in the order of the tables.
    fn values(self) -> [i64; 4] {
        [self.server, self.network, self.nic, self.volume]
    }

    fn of(values: [i64; 4]) -> Self {
        let [server, network, nic, volume] = values;
        Self {
            server,
            network,
            nic,
            volume,
        }
    }

    /// The higher number of each kind.
    pub fn max(self, other: Self) -> Self {
        Self {
            server: self.server.max(other.server),
            network: self.network.max(other.network),
            nic: self.nic.max(other.nic),
            volume: self.volume.max(other.volume),
        }
    }

    /// Each number and `more`.
    pub fn plus(self, more: i64) -> Self {
        Self::of(self.values().map(|value| value.saturating_add(more)))
    }

    /// Returns whether no number is above that of `other`.
    pub fn is_within(self, other: Self) -> bool {
        let pairs = self.values().into_iter().zip(other.values());
        pairs.into_iter().all(|(own, limit)| own <= limit)
    }

    /// Notes a number of a kind, unless it was made up.
    pub fn note(kind: &mut i64, id: Option<i64>) {
        if let Some(id) = id.filter(|id| *id < REACHABLE) {
            *kind = (*kind).max(id);
        }
    }

    /// These numbers without such as nobody comes to.
    pub fn reachable(self) -> Self {
        Self::of(self.values().map(|value| match value < REACHABLE {
            true => value,
            false => 0,
        }))
    }
}

/// The highest numbers that the database has given out, rows that are gone again included.
///
/// # Errors
/// The database fails.
pub async fn given_out(database: &DatabaseConnection) -> Result<Ids, DbErr> {
    let mut values = [0; 4];
    for (value, table) in values.iter_mut().zip(TABLES) {
        *value = position(database, table).await?;
    }
    Ok(Ids::of(values))
}

/// Makes sure that the next number of each kind is above that in `floor`: numbers go up, never
/// down.
///
/// # Errors
/// The database fails.
pub async fn raise(database: &DatabaseConnection, floor: Ids) -> Result<(), DbErr> {
    for (floor, table) in floor.reachable().values().into_iter().zip(TABLES) {
        if position(database, table).await? < floor {
            raise_one(database, table, floor).await?;
        }
    }
    Ok(())
}

async fn row(
    database: &impl ConnectionTrait,
    statement: String,
) -> Result<Option<QueryResult>, DbErr> {
    let backend = database.get_database_backend();
    database
        .query_one_raw(Statement::from_string(backend, statement))
        .await
}

async fn value(database: &impl ConnectionTrait, statement: String) -> Result<i64, DbErr> {
    match row(database, statement).await? {
        Some(row) => Ok(row.try_get_by_index::<Option<i64>>(0)?.unwrap_or(0)),
        None => Ok(0),
    }
}

/// The highest number that a table has given out.
async fn position(database: &impl ConnectionTrait, table: &str) -> Result<i64, DbErr> {
    let counter = match database.get_database_backend() {
        DbBackend::Sqlite => format!("SELECT seq FROM sqlite_sequence WHERE name = '{table}'"),
        DbBackend::Postgres => format!(
            "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {}",
            sequence(database, table).await?
        ),
        // MySQL may answer with an older number, so the rows are asked as well.
        _ => format!(
            "SELECT CAST(auto_increment AS SIGNED) - 1 FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_name = '{table}'"
        ),
    };
    let counter = value(database, counter).await?;
    let highest = value(database, format!("SELECT MAX(id) FROM {table}")).await?;
    Ok(counter.max(highest))
}

/// The name of a table's sequence, as PostgreSQL quotes it.
async fn sequence(database: &impl ConnectionTrait, table: &str) -> Result<String, DbErr> {
    row(
        database,
        format!("SELECT pg_get_serial_sequence('{table}', 'id')"),
    )
    .await?
    .and_then(|row| row.try_get_by_index::<Option<String>>(0).transpose())
    .ok_or_else(|| DbErr::RecordNotFound(format!("the sequence of {table}")))?
}

async fn raise_one(database: &DatabaseConnection, table: &str, floor: i64) -> Result<(), DbErr> {
    match database.get_database_backend() {
        DbBackend::Sqlite => {
            let transaction = super::database::write(database).await?;
            let known = format!("SELECT COUNT(*) FROM sqlite_sequence WHERE name = '{table}'");
            let statement = match value(&transaction, known).await? {
                0 => format!("INSERT INTO sqlite_sequence (name, seq) VALUES ('{table}', {floor})"),
                _ => format!(
                    "UPDATE sqlite_sequence SET seq = MAX(seq, {floor}) WHERE name = '{table}'"
                ),
            };
            transaction.execute_unprepared(&statement).await?;
            transaction.commit().await
        }
        DbBackend::Postgres => {
            let transaction = database.begin().await?;
            // Nobody takes a number while it is compared and set.
            let lock = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
            transaction.execute_unprepared(&lock).await?;
            if position(&transaction, table).await? < floor {
                let sequence = sequence(&transaction, table).await?;
                let set = format!("SELECT setval('{sequence}', {floor})");
                row(&transaction, set).await?;
            }
            transaction.commit().await
        }
        // InnoDB never goes below its highest row by this.
        _ => {
            let next = floor.saturating_add(1);
            let set = format!("ALTER TABLE {table} AUTO_INCREMENT = {next}");
            database.execute_unprepared(&set).await?;
            Ok(())
        }
    }
}
