//! What only one network can have: a MAC prefix, a bridge. As with addresses, the primary key of
//! the table decides between two who want the same.

use std::collections::HashSet;

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
};

use crate::model::entity::pool_value;

/// The prefix of all networks that do not have one of their own. With the digit of the cluster
/// it is the first half of a MAC address.
pub const COMMON_MAC_PREFIX: &str = "aa:00:0";

const MAC_POOL: &str = "mac-prefix";
const BRIDGE_POOL: &str = "bridge";
/// Five hex digits: the first is the common prefix.
const FIRST_PREFIX: i64 = 0xaa000;
const PREFIXES: i64 = 0x10000;

/// Takes a MAC prefix for a network; none: all are in use.
///
/// # Errors
/// The database fails.
pub async fn mac_prefix(
    database: &impl ConnectionTrait,
    network_id: i64,
) -> Result<Option<String>, DbErr> {
    let good = (1..PREFIXES).filter(|index| is_good(*index));
    let taken = take(database, MAC_POOL, network_id, good).await?;
    Ok(taken.map(prefix))
}

/// Takes one of `bridges` for a network; none: all are in use.
///
/// # Errors
/// The database fails.
pub async fn bridge(
    database: &impl ConnectionTrait,
    network_id: i64,
    bridges: &[String],
) -> Result<Option<String>, DbErr> {
    let indexes = 0..i64::try_from(bridges.len()).unwrap_or(0);
    let taken = take(database, BRIDGE_POOL, network_id, indexes).await?;
    Ok(taken.and_then(|index| bridges.get(usize::try_from(index).ok()?).cloned()))
}

/// Gives back what a network had.
///
/// # Errors
/// The database fails.
pub async fn release(database: &impl ConnectionTrait, network_id: i64) -> Result<(), DbErr> {
    pool_value::Entity::delete_many()
        .filter(pool_value::Column::NetworkId.eq(network_id))
        .exec(database)
        .await?;
    Ok(())
}

async fn take(
    database: &impl ConnectionTrait,
    pool: &str,
    network_id: i64,
    values: impl Iterator<Item = i64>,
) -> Result<Option<i64>, DbErr> {
    let used: HashSet<i64> = pool_value::Entity::find()
        .select_only()
        .column(pool_value::Column::Value)
        .filter(pool_value::Column::Pool.eq(pool))
        .into_tuple()
        .all(database)
        .await?
        .into_iter()
        .collect();
    for value in values.filter(|value| !used.contains(value)) {
        let row = pool_value::ActiveModel {
            pool: ActiveValue::Set(pool.to_owned()),
            value: ActiveValue::Set(value),
            network_id: ActiveValue::Set(network_id),
        };
        let key = [pool_value::Column::Pool, pool_value::Column::Value];
        let inserted = pool_value::Entity::insert(row)
            .on_conflict(OnConflict::columns(key).do_nothing_on(key).to_owned())
            .exec_without_returning(database)
            .await;
        match inserted {
            Ok(rows) if rows > 0 => return Ok(Some(value)),
            Ok(_) | Err(DbErr::RecordNotInserted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether addresses with this prefix are unicast and locally administered (IEEE 802, clause 8.2).
fn is_good(index: i64) -> bool {
    let first_octet = (FIRST_PREFIX + index) >> 12;
    first_octet & 0b11 == 0b10
}

fn prefix(index: i64) -> String {
    let digits = format!("{:05x}", FIRST_PREFIX + index);
    let (first, rest) = digits.split_at(2);
    let (second, third) = rest.split_at(2);
    format!("{first}:{second}:{third}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_local_unicast_and_not_the_common_one() {
        assert_eq!(prefix(0), COMMON_MAC_PREFIX);
        assert_eq!(prefix(1), "aa:00:1");
        assert_eq!(prefix(0x1000), "ab:00:0");
        assert!(is_good(1) && !is_good(0x1000) && !is_good(0x2000) && is_good(0x4000));
    }
}
