//! What only one network can have: a MAC prefix, a bridge. As with addresses, the primary key of
//! the table decides between two who want the same.

use std::collections::HashSet;

use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
};

use super::addresses::any_of;
use crate::model::database::insert_once;
use crate::model::entity::pool_value;

/// The prefix of all networks that do not have one of their own. With the digit of the cluster
/// it is the first half of a MAC address.
pub const COMMON_MAC_PREFIX: &str = "aa:00:0";

const MAC_POOL: &str = "mac-prefix";
const BRIDGE_POOL: &str = "bridge";
/// Five hex digits: the first is the common prefix.
const FIRST_PREFIX: i64 = 0xaa000;
const PREFIXES: i64 = 0x10000;
/// How many free ones are chosen from: more than there are allocators.
const CHOICE: usize = 2000;

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
    let mut free: Vec<i64> = values
        .filter(|value| !used.contains(value))
        .take(CHOICE)
        .collect();
    let mut index = 0;
    while index < free.len() {
        let value = free.swap_remove(index);
        let row = pool_value::ActiveModel {
            pool: ActiveValue::Set(pool.to_owned()),
            value: ActiveValue::Set(value),
            network_id: ActiveValue::Set(network_id),
        };
        let key = [pool_value::Column::Pool, pool_value::Column::Value];
        if insert_once(database, row, key).await? {
            return Ok(Some(value));
        }
        // The lowest at first; once somebody was faster, any, so as not to meet again.
        index = any_of(free.len());
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
