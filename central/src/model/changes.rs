//! Writing back only what has changed of a row.

use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, Iterable as _, ModelTrait};

/// The columns of `new` that differ from those of `old`, to be set.
pub fn between<M, A>(old: M, new: &M) -> A
where
    M: ModelTrait + IntoActiveModel<A>,
    A: ActiveModelTrait<Entity = M::Entity>,
{
    let mut row = old.into_active_model();
    for column in <M::Entity as EntityTrait>::Column::iter() {
        row.set_if_not_equals(column, new.get(column));
    }
    row
}
