//! Making the disks of a server what Ganeti says they are.

use agents::message::InstanceDisk;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter,
};

use crate::ganeti::naming::Naming;
use crate::model::entity::{server, volume};
use crate::model::moment;

/// The state of a disk that a server has, and of one that is no more.
const IN_USE: &str = "IN_USE";
pub const DELETED: &str = "DELETED";

/// Applies the whole list of disks that an instance has.
///
/// # Errors
/// The database fails.
pub async fn make_so(
    naming: &Naming,
    transaction: &DatabaseTransaction,
    server: &server::Model,
    disks: &[InstanceDisk],
) -> Result<(), DbErr> {
    let volumes = volume::Entity::find()
        .filter(volume::Column::ServerId.eq(server.id))
        .filter(volume::Column::DeletedAt.is_null())
        .all(transaction)
        .await?;
    let now = moment::now();
    let ours: Vec<(i64, i32)> = volumes
        .iter()
        .map(|volume| (volume.id, volume.disk_index))
        .collect();
    let matched = matched(naming, disks, &ours);
    for (index, (disk, id)) in disks.iter().zip(&matched).enumerate() {
        let Some(volume) = id
            .as_ref()
            .and_then(|id| volumes.iter().find(|volume| volume.id == *id))
        else {
            tracing::warn!(
                server = server.id,
                disk = disk.name.as_deref().unwrap_or("(unnamed)"),
                "a disk that we do not know"
            );
            continue;
        };
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let size = gib(disk.size);
        if (volume.disk_index, volume.size, volume.status.as_str()) == (index, size, IN_USE) {
            continue;
        }
        let mut row = volume.clone().into_active_model();
        row.disk_index = ActiveValue::Set(index);
        row.size = ActiveValue::Set(size);
        row.status = ActiveValue::Set(IN_USE.to_owned());
        row.updated_at = ActiveValue::Set(now);
        row.update(transaction).await?;
    }
    let gone: Vec<i64> = volumes
        .iter()
        .map(|volume| volume.id)
        .filter(|id| !matched.contains(&Some(*id)))
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    volume::Entity::update_many()
        .col_expr(volume::Column::Status, Expr::value(DELETED))
        .col_expr(volume::Column::UpdatedAt, Expr::value(now))
        .col_expr(volume::Column::DeletedAt, Expr::value(now))
        .filter(volume::Column::Id.is_in(gone))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Which of our disks, given by number and index, each of an instance's disks is: the one that
/// it is named after; else, if its name says nothing, the one that has its place.
pub fn matched(naming: &Naming, disks: &[InstanceDisk], ours: &[(i64, i32)]) -> Vec<Option<i64>> {
    let named: Vec<Option<i64>> = disks
        .iter()
        .map(|disk| naming.volume_id(disk.name.as_deref()?))
        .collect();
    named
        .iter()
        .enumerate()
        .map(|(place, id)| match id {
            // Of two with one name the first is meant.
            Some(id) if named.iter().take(place).any(|other| other == &Some(*id)) => None,
            Some(id) => ours.iter().any(|(own, _)| own == id).then_some(*id),
            None => ours
                .iter()
                .find(|(own, index)| {
                    usize::try_from(*index) == Ok(place) && !named.contains(&Some(*own))
                })
                .map(|(own, _)| *own),
        })
        .collect()
}

/// The size of a disk in GiB, of its size in MiB: what has been begun counts.
pub fn gib(mib: u64) -> i64 {
    i64::try_from(mib.div_ceil(1024)).unwrap_or(i64::MAX)
}
