//! What is held against what is used: differences inside the database alone.

use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, JoinType, QueryFilter,
    QuerySelect, RelationTrait,
};

use super::difference::{Difference, Object, Repair, What};
use crate::ganeti::intent;
use crate::model::entity::{
    address, intent as intent_row, network, pool_value, port, server, subnet,
};
use crate::model::moment;

/// The most differences of one kind that are looked at in one pass.
const MOST: u64 = 1000;
/// An intent that is older than this many microseconds is told.
const OLD: i64 = 3_600_000_000;

/// All differences between what is held and what is used.
///
/// # Errors
/// The database fails.
pub async fn all(database: &DatabaseConnection) -> Result<Vec<Difference>, DbErr> {
    let mut found = Vec::new();
    leaked_addresses(database, &mut found).await?;
    unheld_addresses(database, &mut found).await?;
    pool_values(database, &mut found).await?;
    intents(database, &mut found).await?;
    Ok(found)
}

/// Addresses of NICs that are no more.
async fn leaked_addresses(
    database: &DatabaseConnection,
    found: &mut Vec<Difference>,
) -> Result<(), DbErr> {
    let without_port = Condition::all()
        .add(address::Column::PortId.is_null())
        .add(address::Column::Floating.eq(false));
    let rows = address::Entity::find()
        .join(JoinType::LeftJoin, address::Relation::Port.def())
        .filter(address::Column::Live.eq(true))
        .filter(
            Condition::any()
                .add(without_port)
                .add(port::Column::DeletedAt.is_not_null()),
        )
        .limit(MOST)
        .all(database)
        .await?;
    for row in rows {
        let after = row.port_id.map_or_else(
            || "no port".to_owned(),
            |port| format!("port {port} is deleted"),
        );
        found.push(Difference {
            object: Object::Address(row.id),
            what: What::Leaked,
            before: row.address,
            after,
            repair: Some(Repair::ReleaseAddress),
        });
    }
    Ok(())
}

/// NICs with an address in a range of ours that nobody holds.
async fn unheld_addresses(
    database: &DatabaseConnection,
    found: &mut Vec<Difference>,
) -> Result<(), DbErr> {
    use sea_orm::QueryTrait;
    let held = address::Entity::find()
        .select_only()
        .column(address::Column::PortId)
        .filter(address::Column::Live.eq(true))
        .filter(address::Column::PortId.is_not_null())
        .into_query();
    let with_range = subnet::Entity::find()
        .select_only()
        .column(subnet::Column::NetworkId)
        .filter(subnet::Column::Live.eq(true))
        .filter(subnet::Column::IpVersion.eq(4))
        .into_query();
    let rows = port::Entity::find()
        .filter(port::Column::DeletedAt.is_null())
        .filter(port::Column::Ipv4.is_not_null())
        .filter(port::Column::NetworkId.in_subquery(with_range))
        .filter(port::Column::Id.not_in_subquery(held))
        .limit(MOST)
        .all(database)
        .await?;
    for row in rows {
        found.push(Difference {
            object: Object::Port(row.id),
            what: What::Unheld,
            before: "not held".to_owned(),
            after: row.ipv4.unwrap_or_default(),
            repair: Some(Repair::HoldAddress),
        });
    }
    Ok(())
}

/// MAC prefixes and bridges of networks that are no more.
async fn pool_values(
    database: &DatabaseConnection,
    found: &mut Vec<Difference>,
) -> Result<(), DbErr> {
    use sea_orm::QueryTrait;
    let live = network::Entity::find()
        .select_only()
        .column(network::Column::Id)
        .filter(network::Column::DeletedAt.is_null())
        .into_query();
    let rows = pool_value::Entity::find()
        .filter(pool_value::Column::NetworkId.not_in_subquery(live))
        .limit(MOST)
        .all(database)
        .await?;
    for row in rows {
        found.push(Difference {
            object: Object::Network(row.network_id),
            what: What::Leaked,
            before: format!("{} {}", row.pool, row.value),
            after: "the network is deleted".to_owned(),
            repair: Some(Repair::ReleasePools),
        });
    }
    Ok(())
}

/// Intents of servers that are no more, and such as wait for long.
async fn intents(database: &DatabaseConnection, found: &mut Vec<Difference>) -> Result<(), DbErr> {
    use sea_orm::QueryTrait;
    let deleted = server::Entity::find()
        .select_only()
        .column(server::Column::Id)
        .filter(server::Column::DeletedAt.is_not_null())
        .into_query();
    let old = moment::now().saturating_sub(OLD);
    let rows = intent_row::Entity::find()
        .filter(intent_row::Column::State.eq(intent::PENDING))
        .filter(
            Condition::any()
                .add(intent_row::Column::ServerId.in_subquery(deleted.clone()))
                .add(intent_row::Column::CreatedAt.lt(old)),
        )
        .limit(MOST)
        .all(database)
        .await?;
    let gone: Vec<i64> = server::Entity::find()
        .select_only()
        .column(server::Column::Id)
        .filter(server::Column::Id.is_in(rows.iter().filter_map(|row| row.server_id)))
        .filter(server::Column::DeletedAt.is_not_null())
        .into_tuple()
        .all(database)
        .await?;
    for row in rows {
        let of = row
            .server_id
            .map_or_else(String::new, |server| format!(" of server {server}"));
        let is_gone = row.server_id.is_some_and(|server| gone.contains(&server));
        let (after, repair) = if is_gone {
            ("the server is deleted".to_owned(), Some(Repair::DropIntent))
        } else {
            let why = row.error.unwrap_or_else(|| "no reason known".to_owned());
            let since = moment::iso(row.created_at);
            (format!("waits since {since}: {why}"), None)
        };
        found.push(Difference {
            object: Object::Intent(row.id),
            what: What::Pending,
            before: format!("{}{of}", row.kind),
            after,
            repair,
        });
    }
    Ok(())
}
