//! The labels of a server. Each is a register of its own: there or not, as the last job that set
//! or took it says; so messages may come in any order. What its user wished for and no job has
//! done yet stands beside it.

use std::collections::BTreeSet;

use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr,
    EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
};

use crate::ganeti::label;
use crate::ganeti::request::Request;
use crate::model::entity::server_tag;
use crate::model::register::{JobStatus, Order};

/// How many labels that are gone are remembered.
const GONE: usize = 100;

/// The labels of a server, gone ones included.
///
/// # Errors
/// The database fails.
pub async fn rows(
    database: &impl ConnectionTrait,
    server_id: i64,
) -> Result<Vec<server_tag::Model>, DbErr> {
    server_tag::Entity::find()
        .filter(server_tag::Column::ServerId.eq(server_id))
        .order_by_asc(server_tag::Column::Tag)
        .all(database)
        .await
}

/// Whether its user sees it.
pub fn is_shown(row: &server_tag::Model) -> bool {
    row.wanted.unwrap_or(row.live)
}

/// Applies the end of a job that set (`OP_TAGS_SET`) or took (`OP_TAGS_DEL`) `tags`, or that
/// created the instance with them.
///
/// # Errors
/// The database fails.
pub async fn apply(
    transaction: &DatabaseTransaction,
    server_id: i64,
    opcode: &str,
    status: JobStatus,
    order: Order,
    tags: &[String],
) -> Result<bool, DbErr> {
    let live = match opcode {
        "OP_TAGS_SET" | "OP_INSTANCE_CREATE" => true,
        "OP_TAGS_DEL" => false,
        _ => return Ok(false),
    };
    let named: BTreeSet<String> = tags.iter().filter_map(|tag| label::of_tag(tag)).collect();
    if named.is_empty() || !status.is_final() {
        return Ok(false);
    }
    let rows = rows(transaction, server_id).await?;
    let mut changed = false;
    for name in named {
        let found = rows.iter().find(|row| row.tag == name);
        let old = found.cloned().unwrap_or_else(|| empty(server_id, name));
        let mut new = old.clone();
        if status == JobStatus::Success && order > order_of(&old) {
            new.live = live;
            (new.job_id, new.job_rank, new.job_time) = (order.job, order.rank, order.time);
        }
        // The end of an earlier job says nothing about a wish to the contrary since then.
        if old.wanted == Some(live) {
            new.wanted = None;
        }
        if new == old {
            continue;
        }
        changed = true;
        write(transaction, new, found.is_some()).await?;
    }
    Ok(changed)
}

/// Makes the labels of a server those that a look at its instance has shown.
///
/// # Errors
/// The database fails.
pub async fn make_so(
    transaction: &DatabaseTransaction,
    server_id: i64,
    labels: &BTreeSet<String>,
    order: Order,
) -> Result<(), DbErr> {
    let rows = rows(transaction, server_id).await?;
    let gone = rows.iter().map(|row| row.tag.clone());
    let all: BTreeSet<String> = gone.chain(labels.iter().cloned()).collect();
    for name in all {
        let found = rows.iter().find(|row| row.tag == name);
        let old = found
            .cloned()
            .unwrap_or_else(|| empty(server_id, name.clone()));
        let live = labels.contains(&name);
        if (old.live, old.wanted) == (live, None) {
            continue;
        }
        let new = server_tag::Model {
            live,
            wanted: None,
            job_id: order.job,
            job_rank: order.rank,
            job_time: order.time,
            ..old
        };
        write(transaction, new, found.is_some()).await?;
    }
    Ok(())
}

fn empty(server_id: i64, tag: String) -> server_tag::Model {
    server_tag::Model {
        server_id,
        tag,
        live: false,
        wanted: None,
        job_id: 0,
        job_rank: 0,
        job_time: 0,
    }
}

fn order_of(row: &server_tag::Model) -> Order {
    Order {
        job: row.job_id,
        rank: row.job_rank,
        time: row.job_time,
    }
}

/// Writes down that a label is wished for, or wished away; none of it if that is so already.
///
/// # Errors
/// The database fails.
pub async fn wish(
    transaction: &DatabaseTransaction,
    server_id: i64,
    row: Option<&server_tag::Model>,
    label: &str,
    there: bool,
) -> Result<(), DbErr> {
    let old = row
        .cloned()
        .unwrap_or_else(|| empty(server_id, label.to_owned()));
    let new = server_tag::Model {
        wanted: Some(there),
        ..old
    };
    write(transaction, new, row.is_some()).await
}

/// Lets go of the wishes that `request` was to fulfil.
///
/// # Errors
/// The database fails.
pub async fn give_up(
    transaction: &DatabaseTransaction,
    server_id: i64,
    request: &Request,
) -> Result<(), DbErr> {
    let named: BTreeSet<String> = request
        .query
        .iter()
        .filter_map(|(_, tag)| label::of_tag(tag))
        .collect();
    for row in rows(transaction, server_id).await? {
        if row.wanted.is_some() && named.contains(&row.tag) {
            let new = server_tag::Model {
                wanted: None,
                ..row
            };
            write(transaction, new, true).await?;
        }
    }
    Ok(())
}

/// Forgets labels that are gone, but for the last ones: a late message about one of those would
/// bring it back, until the reconciler looks.
///
/// # Errors
/// The database fails.
pub async fn forget(transaction: &DatabaseTransaction, server_id: i64) -> Result<(), DbErr> {
    let mut gone: Vec<_> = rows(transaction, server_id)
        .await?
        .into_iter()
        .filter(|row| !row.live && row.wanted.is_none())
        .collect();
    gone.sort_by_key(|row| std::cmp::Reverse(row.job_id));
    for row in gone.into_iter().skip(GONE) {
        row.into_active_model().delete(transaction).await?;
    }
    Ok(())
}

/// The server's row is locked, so no other has written this one meanwhile.
async fn write(
    transaction: &DatabaseTransaction,
    row: server_tag::Model,
    is_there: bool,
) -> Result<(), DbErr> {
    let row = row.into_active_model().reset_all();
    if is_there {
        row.update(transaction).await?;
    } else {
        row.insert(transaction).await?;
    }
    Ok(())
}

/// A label that a new server begins with: if there is an instance, it has it.
///
/// # Errors
/// The database fails.
pub async fn begin_with(
    transaction: &DatabaseTransaction,
    server_id: i64,
    label: &str,
) -> Result<(), DbErr> {
    let row = server_tag::ActiveModel {
        live: ActiveValue::Set(true),
        ..empty(server_id, label.to_owned())
            .into_active_model()
            .reset_all()
    };
    row.insert(transaction).await?;
    Ok(())
}
