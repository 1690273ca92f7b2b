//! Putting a difference right. What is changed in the database and the entry in the audit are one
//! transaction; what the cluster is asked for is in the audit before it is asked.

use std::sync::Arc;

use reqwest::Method;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr,
    EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};
use serde_json::{Value, json};

use super::difference::{Difference, Object, Repair};
use super::seen;
use crate::dispatch::outcome::RouteError;
use crate::dispatch::{disks, labels, machine, nics, op, removal};
use crate::ganeti::addresses::{self, AddressError, Holder};
use crate::ganeti::networks::{self, NetworkError};
use crate::ganeti::rapi::Rapi;
use crate::ganeti::submission::Submitter;
use crate::ganeti::{intent, pools};
use crate::model::entity::{
    address, backend, backend_network, intent as intent_row, network, port, repair as audit,
    server, subnet,
};
use crate::model::register::{self, Order};
use crate::model::{database, moment};

/// What became of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It is right now, or a job is on its way.
    Repaired,
    /// It has changed since it was looked at: nothing was done.
    Changed,
}

/// Where a repair is done.
pub struct Site<'a> {
    pub ganeti: &'a Arc<Submitter>,
    /// None: inside the database alone.
    pub backend: Option<(&'a backend::Model, &'a Rapi)>,
    /// [`super::seen::Seen::last_job`] of the look that showed the difference.
    pub last_job: i64,
}

impl Site<'_> {
    /// Puts one difference right.
    ///
    /// # Errors
    /// See [`RouteError`]; [`RouteError::Poison`] for what cannot be done.
    pub async fn repair(&self, difference: &Difference) -> Result<Done, RouteError> {
        let Some(repair) = &difference.repair else {
            return Ok(Done::Changed);
        };
        match (difference.object, repair) {
            (Object::Server(id), Repair::RemoveTags(tags)) => {
                self.remove_tags(difference, id, tags).await
            }
            (Object::Server(id), repair) => self.change_server(difference, id, repair).await,
            (Object::Network(id), Repair::ReleasePools) => {
                let transaction = self.begin().await?;
                pools::release(&transaction, id).await?;
                self.commit(transaction, difference).await
            }
            (Object::Network(id), repair) => self.change_network(difference, id, repair).await,
            (Object::Address(id), _) => self.release_address(difference, id).await,
            (Object::Port(id), _) => self.hold_address(difference, id).await,
            (Object::Intent(id), _) => {
                let transaction = self.begin().await?;
                let reason = "the server is gone";
                if !intent::end(&transaction, id, intent::DROPPED, reason).await? {
                    return Ok(Done::Changed);
                }
                self.commit(transaction, difference).await
            }
        }
    }

    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        database::write(&self.ganeti.database).await
    }

    async fn commit(
        &self,
        transaction: DatabaseTransaction,
        difference: &Difference,
    ) -> Result<Done, RouteError> {
        self.write_down(&transaction, difference).await?;
        transaction.commit().await?;
        Ok(Done::Repaired)
    }

    /// The entry in the audit.
    async fn write_down(
        &self,
        database: &impl ConnectionTrait,
        difference: &Difference,
    ) -> Result<audit::Model, DbErr> {
        audit::ActiveModel {
            id: ActiveValue::NotSet,
            created_at: ActiveValue::Set(moment::now()),
            backend_id: ActiveValue::Set(self.backend.map(|(backend, _)| backend.id)),
            object: ActiveValue::Set(difference.object.to_string()),
            what: ActiveValue::Set(difference.what.to_string()),
            before: ActiveValue::Set(difference.before.clone()),
            after: ActiveValue::Set(difference.after.clone()),
            job_id: ActiveValue::Set(None),
        }
        .insert(database)
        .await
    }

    async fn note_job(&self, entry: audit::Model, job: i64) -> Result<(), DbErr> {
        let mut row = entry.into_active_model();
        row.job_id = ActiveValue::Set(Some(job));
        row.update(&self.ganeti.database).await?;
        Ok(())
    }

    fn rapi(&self) -> Result<&Rapi, RouteError> {
        self.backend
            .map(|(_, rapi)| rapi)
            .ok_or_else(|| RouteError::Poison("no cluster to ask".to_owned()))
    }

    fn reason(&self) -> String {
        format!("snf-central:{}:reconciler", self.ganeti.naming.prefix())
    }

    async fn change_server(
        &self,
        difference: &Difference,
        id: i64,
        repair: &Repair,
    ) -> Result<Done, RouteError> {
        // One answer without it was for all instances; this one is for it alone.
        if matches!(repair, Repair::Gone) {
            let name = self.ganeti.naming.instance(id);
            if self.rapi()?.instance(&name).await?.is_some() {
                return Ok(Done::Changed);
            }
        }
        // So it is for what is let go of since the answer for all lacked it.
        if matches!(repair, Repair::Nics(_) | Repair::Disks(_)) {
            let name = self.ganeti.naming.instance(id);
            let Some(found) = self.rapi()?.instance(&name).await? else {
                return Ok(Done::Changed);
            };
            let now = seen::instance(found).map_err(|error| {
                RouteError::Transient(format!("{name}: not as it should be: {error}"))
            })?;
            let same = match repair {
                Repair::Nics(list) => now.nics == *list,
                Repair::Disks(list) => now.disks == *list,
                _ => false,
            };
            if !same {
                return Ok(Done::Changed);
            }
        }
        let transaction = self.begin().await?;
        let Some(old) = server::Entity::find_by_id(id)
            .lock_exclusive()
            .one(&transaction)
            .await?
        else {
            return Ok(Done::Changed);
        };
        if !self.is_as_looked_at(&transaction, &old, repair).await? {
            return Ok(Done::Changed);
        }
        let now = moment::now();
        let order = Order::looked(self.last_job, now);
        let mut new = old.clone();
        new.updated_at = now;
        match repair {
            Repair::Gone => {
                end_task(&mut new);
                new.deleted_at = Some(now);
                removal::clear(&transaction, id, now).await?;
            }
            Repair::CreationFailed => {
                end_task(&mut new);
                set_state(&mut new, machine::ERROR, order);
                // As its last message would have: what is left of it is not taken for a server.
                new.job_opcode = Some("OP_INSTANCE_CREATE".to_owned());
                new.job_status = Some("error".to_owned());
                nics::fail(&transaction, id).await?;
                let text = "the creation failed: there is no instance, or only a part of one";
                op::note(&transaction, id, "ERROR", text, None, now).await?;
            }
            Repair::State(state) => {
                if old.state == machine::BUILD {
                    new.progress = 100;
                }
                set_state(&mut new, state, order);
            }
            Repair::Flavor(vcpus, memory) => {
                let flavor = op::flavor_like(&transaction, old.flavor_id, *vcpus, *memory).await?;
                let Some(flavor) = flavor else {
                    return Err(RouteError::Poison(format!(
                        "no flavor has {vcpus} vcpus and {memory} MiB on such disks"
                    )));
                };
                new.flavor_id = flavor.id;
                (new.shape_job, new.shape_rank, new.shape_time) =
                    (order.job, order.rank, order.time);
            }
            Repair::Nics(list) => {
                let absent = nics::Absent::All;
                nics::make_so(&self.ganeti.naming, &transaction, &old, list, absent).await?;
                (new.nics_job, new.nics_rank, new.nics_time) = (order.job, order.rank, order.time);
            }
            Repair::Disks(list) => {
                disks::make_so(&self.ganeti.naming, &transaction, &old, list).await?;
            }
            Repair::Labels(list) => labels::make_so(&transaction, id, list, order).await?,
            Repair::Rescue(rescue) => new.rescue = *rescue,
            Repair::EndTask => end_task(&mut new),
            _ => return Ok(Done::Changed),
        }
        new.into_active_model()
            .reset_all()
            .update(&transaction)
            .await?;
        self.commit(transaction, difference).await
    }

    /// Whether a locked server is still what the look was compared with: nothing new is asked
    /// for it, and no later job has told anything.
    async fn is_as_looked_at(
        &self,
        transaction: &DatabaseTransaction,
        server: &server::Model,
        repair: &Repair,
    ) -> Result<bool, DbErr> {
        let told = match repair {
            Repair::State(_) => register::state(server),
            Repair::Flavor(..) => register::shape(server),
            Repair::Nics(_) | Repair::Disks(_) | Repair::Rescue(_) => register::nics(server),
            _ => register::job(server),
        };
        let later = told.job > self.last_job
            || server.task_job.is_some_and(|job| job > self.last_job)
            || server.deleted_at.is_some();
        if later {
            return Ok(false);
        }
        let waiting = intent_row::Entity::find()
            .filter(intent_row::Column::ServerId.eq(server.id))
            .filter(intent_row::Column::State.eq(intent::PENDING))
            .one(transaction)
            .await?;
        Ok(waiting.is_none())
    }

    async fn remove_tags(
        &self,
        difference: &Difference,
        id: i64,
        tags: &[String],
    ) -> Result<Done, RouteError> {
        let path = format!("/2/instances/{}/tags", self.ganeti.naming.instance(id));
        let query: Vec<(&str, &str)> = tags.iter().map(|tag| ("tag", tag.as_str())).collect();
        self.ask(difference, Method::DELETE, &path, &query, None)
            .await
    }

    /// Submits a job for a difference that is in the audit by then.
    async fn ask(
        &self,
        difference: &Difference,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Done, RouteError> {
        let rapi = self.rapi()?;
        let entry = self.write_down(&self.ganeti.database, difference).await?;
        let reason = self.reason();
        let job = rapi.submit(method, path, query, body, &reason).await?;
        self.note_job(entry, job).await?;
        Ok(Done::Repaired)
    }

    async fn change_network(
        &self,
        difference: &Difference,
        id: i64,
        repair: &Repair,
    ) -> Result<Done, RouteError> {
        let Some((backend, rapi)) = self.backend else {
            return Ok(Done::Changed);
        };
        let database = &self.ganeti.database;
        let live = network::Entity::find_by_id(id)
            .filter(network::Column::DeletedAt.is_null())
            .one(database)
            .await?
            .is_some();
        let state = match repair {
            Repair::RemoveNetwork(groups) if !live => {
                return self.remove_network(difference, id, groups, rapi).await;
            }
            Repair::NetworkState(networks::DELETED) if !live => networks::DELETED,
            Repair::NetworkState(state) if live => state,
            // What is missing is found when it is brought in again.
            Repair::ConnectNetwork if live => networks::ERROR,
            _ => return Ok(Done::Changed),
        };
        let known = networks::row(database, id, backend.id).await?;
        let transaction = self.begin().await?;
        let done = backend_network::Entity::update_many()
            .col_expr(backend_network::Column::State, Expr::value(state))
            .col_expr(backend_network::Column::Jobs, Expr::value(json!([])))
            .filter(backend_network::Column::Id.eq(known.id))
            .filter(backend_network::Column::State.eq(&known.state))
            .filter(
                Expr::col(backend_network::Column::ClaimedUntil).lt(database::clock(&transaction)),
            )
            .filter(backend_network::Column::JobId.lte(self.last_job))
            .exec(&transaction)
            .await?;
        if done.rows_affected == 0 {
            return Ok(Done::Changed);
        }
        self.commit(transaction, difference).await?;
        if matches!(repair, Repair::ConnectNetwork) {
            networks::ensure(database, &self.ganeti.naming, rapi, backend, id)
                .await
                .map_err(|error| match error {
                    NetworkError::Rapi(error) => error.into(),
                    NetworkError::Database(error) => error.into(),
                    other => RouteError::Transient(other.to_string()),
                })?;
        }
        Ok(Done::Repaired)
    }

    /// Disconnects a network from its groups and removes it when that is done.
    async fn remove_network(
        &self,
        difference: &Difference,
        id: i64,
        groups: &[String],
        rapi: &Rapi,
    ) -> Result<Done, RouteError> {
        let path = format!("/2/networks/{}", self.ganeti.naming.network(id));
        // One answer that had nobody in it was for all networks; this one is for it alone.
        let users = rapi.get(&path, &[]).await?;
        let users = users.get("inst_list").and_then(Value::as_array);
        if users.is_some_and(|users| !users.is_empty()) {
            return Ok(Done::Changed);
        }
        let entry = self.write_down(&self.ganeti.database, difference).await?;
        let reason = self.reason();
        let mut depends = Vec::new();
        for group in groups {
            let body = json!({"group_name": group});
            let path = format!("{path}/disconnect");
            let job = rapi
                .submit(Method::PUT, &path, &[], Some(&body), &reason)
                .await?;
            depends.push(json!([job, ["success"]]));
        }
        let body = match depends.is_empty() {
            true => None,
            false => Some(json!({"depends": depends})),
        };
        let job = rapi
            .submit(Method::DELETE, &path, &[], body.as_ref(), &reason)
            .await?;
        self.note_job(entry, job).await?;
        Ok(Done::Repaired)
    }

    async fn release_address(&self, difference: &Difference, id: i64) -> Result<Done, RouteError> {
        let transaction = self.begin().await?;
        let now = moment::now();
        let Some(row) = address::Entity::find_by_id(id)
            .filter(address::Column::Live.eq(true))
            .lock_exclusive()
            .one(&transaction)
            .await?
        else {
            return Ok(Done::Changed);
        };
        if let Some(id) = row.port_id {
            let port = port::Entity::find_by_id(id).one(&transaction).await?;
            if port.is_some_and(|port| port.deleted_at.is_none()) {
                return Ok(Done::Changed);
            }
        }
        let floating = row.floating;
        let mut row = row.into_active_model();
        row.updated_at = ActiveValue::Set(now);
        if floating {
            row.port_id = ActiveValue::Set(None);
        } else {
            row.live = ActiveValue::Set(None);
            row.deleted_at = ActiveValue::Set(Some(now));
        }
        row.update(&transaction).await?;
        self.commit(transaction, difference).await
    }

    async fn hold_address(&self, difference: &Difference, id: i64) -> Result<Done, RouteError> {
        let transaction = self.begin().await?;
        let Some(port) = port::Entity::find_by_id(id)
            .filter(port::Column::DeletedAt.is_null())
            .lock_exclusive()
            .one(&transaction)
            .await?
        else {
            return Ok(Done::Changed);
        };
        let range = subnet::Entity::find()
            .filter(subnet::Column::NetworkId.eq(port.network_id))
            .filter(subnet::Column::IpVersion.eq(4))
            .filter(subnet::Column::Live.eq(true))
            .one(&transaction)
            .await?;
        let wanted = port.ipv4.as_deref().and_then(|ip| ip.parse().ok());
        let (Some(range), Some(wanted)) = (range, wanted) else {
            return Ok(Done::Changed);
        };
        let holder = Holder {
            user_id: &port.user_id,
            project_id: &port.project_id,
            port_id: Some(port.id),
            floating: false,
        };
        match addresses::take(&transaction, &range, Some(wanted), &holder).await {
            Ok(_) => self.commit(transaction, difference).await,
            Err(AddressError::Database(error)) => Err(error.into()),
            Err(error) => Err(RouteError::Poison(error.to_string())),
        }
    }
}

fn end_task(server: &mut server::Model) {
    server.task = None;
    server.task_intent = None;
    server.task_job = None;
}

fn set_state(server: &mut server::Model, state: &str, order: Order) {
    server.state = state.to_owned();
    (server.state_job, server.state_rank, server.state_time) = (order.job, order.rank, order.time);
}
