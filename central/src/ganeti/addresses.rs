//! Which IPv4 address a NIC gets.
//!
//! What keeps two NICs from getting the same one is the unique index of the table, not a lock:
//! any number of API servers look for a free number and insert it, and the index decides.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use agents::addr::Ipv4Net;
use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
};

use crate::model::entity::{address, subnet};
use crate::model::{database, moment};

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// All are in use.
    #[error("subnet {0} has no free address")]
    Exhausted(i64),
    /// The subnet was deleted a moment ago.
    #[error("subnet {0} is deleted")]
    Gone(i64),
    /// The one that was asked for is in use.
    #[error("address {0} is in use")]
    Taken(Ipv4Addr),
    /// The one that was asked for is not for NICs.
    #[error("address {address} is not in the pools of subnet {subnet} ({cidr})")]
    Outside {
        /// What was asked for.
        address: Ipv4Addr,
        /// The subnet's id.
        subnet: i64,
        /// The subnet's range.
        cidr: String,
    },
    /// The row of the subnet makes no sense.
    #[error("subnet {0}: {1:?} is not a range of addresses")]
    BadSubnet(i64, String),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Who gets the address.
pub struct Holder<'a> {
    pub user_id: &'a str,
    pub project_id: &'a str,
    pub port_id: Option<i64>,
    pub floating: bool,
}

/// How many numbers are looked at at once.
const WINDOW: u32 = 1024;
/// How often an address may be snatched away before we give up: more than there are allocators.
const ATTEMPTS: usize = 2000;

/// The numbers in a subnet that may be given to NICs.
#[derive(Debug, PartialEq, Eq)]
pub struct Pool {
    ranges: Vec<(u32, u32)>,
    gateway: Option<u32>,
}

impl Pool {
    /// The pool of `subnet`: its allocation pools, or all of its range; never the network's and
    /// the broadcast address, never the gateway's.
    ///
    /// # Errors
    /// [`AddressError::BadSubnet`].
    pub fn of(subnet: &subnet::Model) -> Result<Self, AddressError> {
        let bad = || AddressError::BadSubnet(subnet.id, subnet.cidr.clone());
        let net: Ipv4Net = subnet.cidr.parse().map_err(|_| bad())?;
        let first = u32::from(net.network());
        let last = u32::from(net.broadcast());
        // A /31 and a /32 have neither a network nor a broadcast address (RFC 3021).
        let (first, last) = if net.prefix_len() < 31 {
            (first.saturating_add(1), last.saturating_sub(1))
        } else {
            (first, last)
        };
        let mut ranges = Vec::new();
        for range in subnet.pools.as_array().into_iter().flatten() {
            let end = |index: usize| -> Option<u32> {
                range
                    .get(index)?
                    .as_str()?
                    .parse::<Ipv4Addr>()
                    .ok()
                    .map(u32::from)
            };
            let (Some(from), Some(to)) = (end(0), end(1)) else {
                return Err(bad());
            };
            ranges.push((from.max(first), to.min(last)));
        }
        if ranges.is_empty() {
            ranges.push((first, last));
        }
        ranges.retain(|(from, to)| from <= to);
        let gateway = match &subnet.gateway {
            Some(text) => Some(text.parse::<Ipv4Addr>().map_err(|_| bad())?.into()),
            None => None,
        };
        Ok(Self { ranges, gateway })
    }

    fn has(&self, number: u32) -> bool {
        self.gateway != Some(number)
            && self
                .ranges
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&number))
    }

    /// The parts in which free numbers are looked for.
    fn windows(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().flat_map(|&(from, to)| {
            (from..=to)
                .step_by(WINDOW as usize)
                .map(move |start| (start, to.min(start.saturating_add(WINDOW - 1))))
        })
    }
}

/// Takes a free address, the lowest one if nobody else is about, or `wanted`.
///
/// # Errors
/// See [`AddressError`].
pub async fn take(
    connection: &impl ConnectionTrait,
    subnet: &subnet::Model,
    wanted: Option<Ipv4Addr>,
    holder: &Holder<'_>,
) -> Result<address::Model, AddressError> {
    let pool = Pool::of(subnet)?;
    // The subnet must not go meanwhile. On MySQL and MariaDB the lock is exclusive, which is needed
    // there anyway: who meets another one in a unique index holds a lock on what is beside it, and
    // many who do would wait for each other in a circle: so they come one by one.
    let query = subnet::Entity::find_by_id(subnet.id).filter(subnet::Column::Live.eq(true));
    if database::lock_for_reading(connection, query)
        .one(connection)
        .await?
        .is_none()
    {
        return Err(AddressError::Gone(subnet.id));
    }
    if let Some(wanted) = wanted {
        let number = u32::from(wanted);
        if !pool.has(number) {
            return Err(AddressError::Outside {
                address: wanted,
                subnet: subnet.id,
                cidr: subnet.cidr.clone(),
            });
        }
        return insert(connection, subnet, number, holder)
            .await?
            .ok_or(AddressError::Taken(wanted));
    }
    let mut attempts = 0;
    for (from, to) in pool.windows() {
        loop {
            let used: HashSet<i64> = address::Entity::find()
                .select_only()
                .column(address::Column::Number)
                .filter(address::Column::SubnetId.eq(subnet.id))
                .filter(address::Column::Live.eq(true))
                .filter(address::Column::Number.between(i64::from(from), i64::from(to)))
                .into_tuple()
                .all(connection)
                .await?
                .into_iter()
                .collect();
            let free: Vec<u32> = (from..=to)
                .filter(|number| pool.has(*number) && !used.contains(&i64::from(*number)))
                .collect();
            // The lowest at first; once somebody was faster, any, so as not to meet again.
            let index = if attempts == 0 { 0 } else { any_of(free.len()) };
            let Some(number) = free.get(index) else { break };
            if let Some(taken) = insert(connection, subnet, *number, holder).await? {
                return Ok(taken);
            }
            attempts += 1;
            if attempts > ATTEMPTS {
                return Err(AddressError::Exhausted(subnet.id));
            }
        }
    }
    Err(AddressError::Exhausted(subnet.id))
}

async fn insert(
    connection: &impl ConnectionTrait,
    subnet: &subnet::Model,
    number: u32,
    holder: &Holder<'_>,
) -> Result<Option<address::Model>, DbErr> {
    let now = moment::now();
    let row = address::ActiveModel {
        id: ActiveValue::NotSet,
        subnet_id: ActiveValue::Set(subnet.id),
        network_id: ActiveValue::Set(subnet.network_id),
        number: ActiveValue::Set(i64::from(number)),
        address: ActiveValue::Set(Ipv4Addr::from(number).to_string()),
        floating: ActiveValue::Set(holder.floating),
        user_id: ActiveValue::Set(holder.user_id.to_owned()),
        project_id: ActiveValue::Set(holder.project_id.to_owned()),
        port_id: ActiveValue::Set(holder.port_id),
        live: ActiveValue::Set(Some(true)),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
    };
    let key = [
        address::Column::SubnetId,
        address::Column::Number,
        address::Column::Live,
    ];
    if !database::insert_once(connection, row, key).await? {
        return Ok(None);
    }
    address::Entity::find()
        .filter(address::Column::SubnetId.eq(subnet.id))
        .filter(address::Column::Number.eq(i64::from(number)))
        .filter(address::Column::Live.eq(true))
        .one(connection)
        .await
}

/// Any index below `length`; 0 for 0.
pub fn any_of(length: usize) -> usize {
    let random = getrandom::u32().unwrap_or_default();
    usize::try_from(random)
        .unwrap_or_default()
        .checked_rem(length)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ganeti::pools;

    fn subnet(cidr: &str, gateway: Option<&str>, pools: Value) -> subnet::Model {
        subnet::Model {
            id: 1,
            network_id: 1,
            name: String::new(),
            ip_version: 4,
            cidr: cidr.to_owned(),
            gateway: gateway.map(str::to_owned),
            dhcp: true,
            slaac: false,
            dns: json!([]),
            host_routes: json!([]),
            pools,
            live: Some(true),
            created_at: 0,
            updated_at: 0,
            deleted_at: None,
        }
    }

    fn count(pool: &Pool) -> usize {
        pool.windows()
            .map(|(from, to)| (from..=to).filter(|number| pool.has(*number)).count())
            .sum()
    }

    fn number(text: &str) -> u32 {
        text.parse::<Ipv4Addr>().unwrap().into()
    }

    #[test]
    fn a_pool_leaves_out_network_gateway_and_broadcast() {
        let pool = Pool::of(&subnet("10.0.0.0/29", Some("10.0.0.1"), json!([]))).unwrap();
        assert_eq!(count(&pool), 5);
        for text in [
            "10.0.0.0",
            "10.0.0.1",
            "10.0.0.7",
            "10.0.1.2",
            "9.255.255.255",
        ] {
            assert!(!pool.has(number(text)), "{text}");
        }
        assert!(pool.has(number("10.0.0.2")) && pool.has(number("10.0.0.6")));
    }

    #[test]
    fn allocation_pools_are_kept_to_and_inside() {
        let pools = json!([["10.0.0.10", "10.0.0.12"], ["10.0.0.250", "10.0.5.0"]]);
        let pool = Pool::of(&subnet("10.0.0.0/24", Some("10.0.0.11"), pools)).unwrap();
        assert_eq!(count(&pool), 2 + 5);
        assert!(Pool::of(&subnet("10.0.0.0/24", None, json!([["x", "y"]]))).is_err());
    }

    #[test]
    fn the_edges_of_the_address_space_are_no_trap() {
        for cidr in [
            "0.0.0.0/0",
            "255.255.255.254/31",
            "255.255.255.255/32",
            "0.0.0.0/32",
        ] {
            let pool = Pool::of(&subnet(cidr, None, json!([]))).unwrap();
            assert!(pool.windows().take(3).count() >= 1, "{cidr}");
        }
        assert!(Pool::of(&subnet("fd00::/64", None, json!([]))).is_err());
    }

    /// A network with a /24 that has 253 addresses to give, in a new database.
    async fn with_subnet(url: &str) -> (sea_orm::DatabaseConnection, subnet::Model) {
        use sea_orm::{ActiveModelTrait, IntoActiveModel};

        use crate::model::entity::network;

        let database = database::connect(url, 16).await.unwrap();
        database::migrate(&database).await.unwrap();
        let network = network::ActiveModel {
            name: ActiveValue::Set(String::new()),
            kind: ActiveValue::Set("CUSTOM".to_owned()),
            mode: ActiveValue::Set("bridged".to_owned()),
            link: ActiveValue::Set("br0".to_owned()),
            mac_prefix: ActiveValue::Set("aa:00:0".to_owned()),
            tags: ActiveValue::Set(json!([])),
            public: ActiveValue::Set(true),
            external_router: ActiveValue::Set(false),
            floating_ip_pool: ActiveValue::Set(false),
            drained: ActiveValue::Set(false),
            created_at: ActiveValue::Set(0),
            updated_at: ActiveValue::Set(0),
            ..Default::default()
        };
        let network = network.insert(&database).await.unwrap();
        let mut row = subnet("10.0.0.0/24", Some("10.0.0.1"), json!([]))
            .into_active_model()
            .reset_all();
        row.id = ActiveValue::NotSet;
        row.network_id = ActiveValue::Set(network.id);
        let subnet = row.insert(&database).await.unwrap();
        (database, subnet)
    }

    /// Two hundred at once, each in a transaction of its own, and then all that is left; and two
    /// hundred MAC prefixes.
    async fn two_hundred_at_once(url: &str) {
        let (database, subnet) = with_subnet(url).await;
        let take_one = || {
            let database = database.clone();
            let subnet = subnet.clone();
            tokio::spawn(async move {
                let transaction = database::write(&database).await.unwrap();
                let holder = Holder {
                    user_id: "u",
                    project_id: "p",
                    port_id: None,
                    floating: true,
                };
                let taken = take(&transaction, &subnet, None, &holder).await;
                transaction.commit().await.unwrap();
                taken.map(|row| row.number)
            })
        };
        let mut numbers = HashSet::new();
        let tasks: Vec<_> = (0..200).map(|_| take_one()).collect();
        for task in tasks {
            let number = task.await.unwrap().unwrap();
            assert!(numbers.insert(number), "{number} was given twice");
        }
        let tasks: Vec<_> = (0..60).map(|_| take_one()).collect();
        let mut refused = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(number) => assert!(numbers.insert(number), "{number} was given twice"),
                Err(AddressError::Exhausted(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((numbers.len(), refused), (253, 7));
        let first = i64::from(number("10.0.0.2"));
        assert!(
            numbers
                .iter()
                .all(|number| (first..first + 253).contains(number))
        );
        let network = subnet.network_id;
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let database = database.clone();
                tokio::spawn(async move {
                    let transaction = database::write(&database).await.unwrap();
                    let prefix = pools::mac_prefix(&transaction, network).await.unwrap();
                    transaction.commit().await.unwrap();
                    prefix.unwrap()
                })
            })
            .collect();
        let mut prefixes = HashSet::new();
        for task in tasks {
            let prefix = task.await.unwrap();
            assert!(prefixes.insert(prefix.clone()), "{prefix} was given twice");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_gives_no_address_twice() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/test.db", folder.path().display());
        two_hundred_at_once(&url).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgresql_gives_no_address_twice() {
        let scratch = harness::scratch::Scratch::new("central-pool").unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let server = harness::postgres::Postgres::start(&scratch.join("pg"), port).unwrap();
        two_hundred_at_once(&server.uri()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn mariadb_gives_no_address_twice() {
        let scratch = harness::scratch::Scratch::new("central-pool").unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let server = harness::mariadb::MariaDb::start(&scratch.join("db"), port).unwrap();
        two_hundred_at_once(&server.uri()).await;
    }
}
