//! What belongs to servers, read for many of them with the same few statements.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};

use crate::dispatch::labels;
use crate::model::entity::{network, port, server, server_metadata, server_tag, volume};

/// The rows that hang on servers.
#[derive(Default)]
pub struct Rows {
    ports: HashMap<i64, Vec<port::Model>>,
    metadata: HashMap<i64, Vec<server_metadata::Model>>,
    volumes: HashMap<i64, Vec<i64>>,
    networks: HashMap<i64, network::Model>,
    tags: HashMap<i64, Vec<String>>,
}

impl Rows {
    /// Reads them for `servers`, with five statements however many there are.
    pub async fn of(
        database: &impl ConnectionTrait,
        servers: &[server::Model],
    ) -> Result<Self, DbErr> {
        let mut rows = Self::default();
        let live: Vec<i64> = servers
            .iter()
            .filter(|server| server.deleted_at.is_none())
            .map(|server| server.id)
            .collect();
        if live.is_empty() {
            return Ok(rows);
        }
        let ports = port::Entity::find()
            .filter(port::Column::ServerId.is_in(live.clone()))
            .filter(port::Column::DeletedAt.is_null())
            .order_by_asc(port::Column::Id)
            .all(database)
            .await?;
        let mut networks: Vec<i64> = ports.iter().map(|port| port.network_id).collect();
        networks.sort_unstable();
        networks.dedup();
        for port in ports {
            if let Some(server) = port.server_id {
                rows.ports.entry(server).or_default().push(port);
            }
        }
        for entry in server_metadata::Entity::find()
            .filter(server_metadata::Column::ServerId.is_in(live.clone()))
            .order_by_asc(server_metadata::Column::Name)
            .all(database)
            .await?
        {
            rows.metadata
                .entry(entry.server_id)
                .or_default()
                .push(entry);
        }
        for row in server_tag::Entity::find()
            .filter(server_tag::Column::ServerId.is_in(live.clone()))
            .order_by_asc(server_tag::Column::Tag)
            .all(database)
            .await?
            .into_iter()
            .filter(labels::is_shown)
        {
            rows.tags.entry(row.server_id).or_default().push(row.tag);
        }
        for volume in volume::Entity::find()
            .filter(volume::Column::ServerId.is_in(live))
            .filter(volume::Column::DeletedAt.is_null())
            .order_by_asc(volume::Column::DiskIndex)
            .all(database)
            .await?
        {
            rows.volumes
                .entry(volume.server_id)
                .or_default()
                .push(volume.id);
        }
        for network in network::Entity::find()
            .filter(network::Column::Id.is_in(networks))
            .all(database)
            .await?
        {
            rows.networks.insert(network.id, network);
        }
        Ok(rows)
    }

    pub fn ports(&self, server: i64) -> &[port::Model] {
        self.ports.get(&server).map_or(&[], Vec::as_slice)
    }

    pub fn metadata(&self, server: i64) -> &[server_metadata::Model] {
        self.metadata.get(&server).map_or(&[], Vec::as_slice)
    }

    pub fn volumes(&self, server: i64) -> &[i64] {
        self.volumes.get(&server).map_or(&[], Vec::as_slice)
    }

    pub fn tags(&self, server: i64) -> &[String] {
        self.tags.get(&server).map_or(&[], Vec::as_slice)
    }

    pub fn network(&self, id: i64) -> Option<&network::Model> {
        self.networks.get(&id)
    }
}
