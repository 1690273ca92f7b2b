//! Images that users register: where one is, what it is, who may use it.

use axum::http::HeaderMap;
use sea_orm::{
    ActiveModelTrait, ActiveValue, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter,
    QuerySelect,
};
use serde_json::{Map, Value, json};

use crate::api::authorization::Privilege;
use crate::api::body::Object;
use crate::api::caller::Caller;
use crate::api::context::Context;
use crate::api::fault::Fault;
use crate::api::find;
use crate::api::quota::{self, Amounts};
use crate::ganeti::image::{DiskFormat, ImageError, check_source, identity, is_in_folders};
use crate::model::entity::image;
use crate::model::{database, id, moment};

/// The most properties of an image, and the most characters of one.
pub const PROPERTIES: usize = 64;
const LENGTH: usize = 1000;

/// An image as somebody wants it registered.
#[derive(Debug, Default)]
pub struct Wanted {
    pub name: Option<String>,
    pub source: Option<String>,
    pub format: Option<DiskFormat>,
    pub public: Option<bool>,
    pub min_ram: Option<i64>,
    pub min_disk: Option<i64>,
    pub size: Option<i64>,
    pub checksum: Option<String>,
    pub properties: Map<String, Value>,
}

fn short<'a>(field: &str, text: &'a str, limit: usize) -> Result<&'a str, Fault> {
    if text.chars().count() > limit || text.chars().any(char::is_control) {
        let reason = format!("must have at most {limit} characters, and no control character");
        return Err(Fault::field(field, text, &reason));
    }
    Ok(text)
}

fn number(field: &str, text: &str) -> Result<i64, Fault> {
    text.parse()
        .ok()
        .filter(|number| (0..=i64::from(i32::MAX).saturating_mul(1 << 20)).contains(number))
        .ok_or_else(|| Fault::field(field, text, "must be a whole number"))
}

impl Wanted {
    /// Reads the body of Glance v2, in which what is not known is a property.
    ///
    /// # Errors
    /// 400 naming the field.
    pub fn of_body(body: &Object<'_>) -> Result<Self, Fault> {
        let mut wanted = Self::default();
        for (name, field) in body.fields() {
            if field.is_null() {
                continue;
            }
            match name {
                "name" => wanted.name = Some(field.name(255)?.to_owned()),
                "source" | "location" => {
                    let text = field.string()?;
                    check_source(text).map_err(|error| field.refuse(error.reason()))?;
                    wanted.source = Some(text.to_owned());
                }
                "disk_format" => {
                    let format = DiskFormat::parse(field.string()?);
                    wanted.format = Some(format.map_err(|error| field.refuse(error.reason()))?);
                }
                "visibility" => {
                    wanted.public = Some(match field.string()? {
                        "public" => true,
                        "private" | "shared" | "community" => false,
                        _ => return Err(field.refuse("must be public or private")),
                    });
                }
                "min_ram" => wanted.min_ram = Some(field.integer(0..=i64::from(i32::MAX))?),
                "min_disk" => wanted.min_disk = Some(field.integer(0..=i64::from(i32::MAX))?),
                "size" => wanted.size = Some(field.integer(0..=i64::MAX)?),
                "checksum" => wanted.checksum = Some(field.text(255)?.to_owned()),
                "container_format" | "protected" | "tags" | "id" | "owner" => {}
                _ => {
                    short("name of a property", name, 255)?;
                    let value = field.text(LENGTH)?;
                    wanted.properties.insert(name.to_owned(), json!(value));
                }
            }
        }
        wanted.few()
    }

    /// Reads the headers of Glance v1.
    ///
    /// # Errors
    /// 400 naming the header.
    pub fn of_headers(headers: &HeaderMap) -> Result<Self, Fault> {
        let mut wanted = Self::default();
        for (name, value) in headers {
            let Some(short_name) = name.as_str().strip_prefix("x-image-meta-") else {
                continue;
            };
            let header = name.as_str();
            let text = std::str::from_utf8(value.as_bytes())
                .map_err(|_| Fault::field(header, "…", "must be UTF-8"))?;
            let text = short(header, text.trim(), LENGTH)?.to_owned();
            if let Some(property) = short_name.strip_prefix("property-") {
                // Headers have no case and no underscore; the names of properties have.
                let property = property.replace('-', "_").to_ascii_uppercase();
                wanted.properties.insert(property, json!(text));
                continue;
            }
            match short_name {
                "name" => wanted.name = Some(short(header, &text, 255)?.to_owned()),
                "location" => {
                    check_source(&text).map_err(|error| refused(header, &text, &error))?;
                    wanted.source = Some(text);
                }
                "disk-format" => {
                    let format = DiskFormat::parse(&text);
                    wanted.format = Some(format.map_err(|error| refused(header, &text, &error))?);
                }
                "is-public" => wanted.public = Some(text.eq_ignore_ascii_case("true")),
                "min-ram" => wanted.min_ram = Some(number(header, &text)?),
                "min-disk" => wanted.min_disk = Some(number(header, &text)?),
                "size" => wanted.size = Some(number(header, &text)?),
                "checksum" => wanted.checksum = Some(short(header, &text, 255)?.to_owned()),
                _ => {}
            }
        }
        wanted.few()
    }

    fn few(self) -> Result<Self, Fault> {
        if self.properties.len() > PROPERTIES {
            return Err(Fault::over_limit(format!(
                "{} properties: at most {PROPERTIES}",
                self.properties.len()
            )));
        }
        Ok(self)
    }

    /// Refuses what the caller's role does not permit.
    async fn permit(
        &self,
        api: &Context,
        transaction: &DatabaseTransaction,
        caller: &Caller,
    ) -> Result<(), Fault> {
        if self.public == Some(true) {
            caller.role.require(Privilege::PublicImages)?;
        }
        let Some(source) = &self.source else {
            return Ok(());
        };
        if caller.role.has(Privilege::AnyImageSource) {
            return Ok(());
        }
        let folders = &api.config().image_sources;
        if folders.is_empty() {
            return caller.role.require(Privilege::AnyImageSource);
        }
        if !is_in_folders(source, folders) {
            let reason = format!(
                "must be below {}, without empty parts, . and %",
                folders.join(" or ")
            );
            return Err(Fault::field("source", source, &reason));
        }
        not_of_others(transaction, caller, source).await
    }
}

/// Refuses the source of a private image of another project, also of one that was deleted: the
/// data is still there. A source that the project itself or a public image has is no secret.
async fn not_of_others(
    transaction: &DatabaseTransaction,
    caller: &Caller,
    source: &str,
) -> Result<(), Fault> {
    let wanted = identity(source);
    let known: Vec<(String, Option<String>, bool, Option<i64>)> = image::Entity::find()
        .select_only()
        .column(image::Column::Source)
        .column(image::Column::ProjectId)
        .column(image::Column::Public)
        .column(image::Column::DeletedAt)
        .into_tuple()
        .all(transaction)
        .await?;
    let mut secret = false;
    for (_, project, public, deleted_at) in
        known.iter().filter(|(known, ..)| identity(known) == wanted)
    {
        let own = project.as_deref() == Some(caller.project_id.as_str());
        if deleted_at.is_none() && (own || *public) {
            return Ok(());
        }
        secret |= !own && !public;
    }
    if secret {
        return caller.role.require(Privilege::AnyImageSource);
    }
    Ok(())
}

/// A field that the validator of image parameters refuses.
fn refused(field: &str, value: &str, error: &ImageError) -> Fault {
    Fault::field(field, value, error.reason())
}

/// The lock of all registrations: a source that is private to one project must not become an image
/// of another one between the look at the images that are there and the new one.
const SOURCES: &str = "image-sources";

/// Registers an image.
///
/// # Errors
/// The source or the publicity is not for this caller; something is missing.
pub async fn register(
    api: &Context,
    caller: &Caller,
    wanted: Wanted,
) -> Result<image::Model, Fault> {
    let transaction = database::write(api.database()).await?;
    database::serialize(&transaction, SOURCES).await?;
    wanted.permit(api, &transaction, caller).await?;
    let one_more = Amounts {
        images: 1,
        ..Amounts::NONE
    };
    quota::take(&transaction, caller, &one_more).await?;
    let missing = |what: &str| Fault::bad_request(format!("{what}: missing"));
    let now = moment::now();
    let row = image::ActiveModel {
        id: ActiveValue::Set(id::random().map_err(Fault::internal)?),
        name: ActiveValue::Set(
            wanted
                .name
                .filter(|name| !name.is_empty())
                .ok_or_else(|| missing("name"))?,
        ),
        os: ActiveValue::Set(api.config().image_os.clone()),
        os_params: ActiveValue::Set(json!({})),
        source: ActiveValue::Set(
            wanted
                .source
                .ok_or_else(|| missing("source: where the image is"))?,
        ),
        format: ActiveValue::Set(
            wanted
                .format
                .unwrap_or(DiskFormat::Diskdump)
                .name()
                .to_owned(),
        ),
        size: ActiveValue::Set(wanted.size.unwrap_or(0)),
        checksum: ActiveValue::Set(wanted.checksum),
        properties: ActiveValue::Set(Value::Object(wanted.properties)),
        status: ActiveValue::Set("ACTIVE".to_owned()),
        user_id: ActiveValue::Set(Some(caller.user_id.clone())),
        project_id: ActiveValue::Set(Some(caller.project_id.clone())),
        public: ActiveValue::Set(wanted.public.unwrap_or(false)),
        min_ram: ActiveValue::Set(wanted.min_ram.unwrap_or(0)),
        min_disk: ActiveValue::Set(wanted.min_disk.unwrap_or(0)),
        created_at: ActiveValue::Set(now),
        updated_at: ActiveValue::Set(now),
        deleted_at: ActiveValue::Set(None),
    };
    let image = row.insert(&transaction).await?;
    transaction.commit().await?;
    Ok(image)
}

/// An image that the caller may change, locked.
async fn own(
    transaction: &sea_orm::DatabaseTransaction,
    caller: &Caller,
    id: &str,
) -> Result<image::Model, Fault> {
    let image = image::Entity::find_by_id(id)
        .filter(find::visible_images(caller))
        .lock_exclusive()
        .one(transaction)
        .await?
        .ok_or_else(|| Fault::not_found("image", id))?;
    // What is public is everybody's: servers of other projects are made from it.
    if image.public || image.project_id.as_deref() != Some(caller.project_id.as_str()) {
        caller.role.require(Privilege::PublicImages)?;
    } else if image.user_id.as_deref() != Some(caller.user_id.as_str()) {
        caller.role.require(Privilege::ImagesOfProject)?;
    }
    Ok(image)
}

/// Changes what is wanted of an image; `replace`: properties that are not named go.
///
/// # Errors
/// The image is not the caller's, or may not be so.
pub async fn change(
    api: &Context,
    caller: &Caller,
    id: &str,
    wanted: Wanted,
    replace: bool,
) -> Result<image::Model, Fault> {
    let transaction = database::write(api.database()).await?;
    if wanted.source.is_some() {
        database::serialize(&transaction, SOURCES).await?;
    }
    wanted.permit(api, &transaction, caller).await?;
    let image = own(&transaction, caller, id).await?;
    let mut properties = match &image.properties {
        Value::Object(map) if !replace => map.clone(),
        _ => Map::new(),
    };
    properties.extend(wanted.properties);
    if properties.len() > PROPERTIES {
        return Err(Fault::over_limit(format!(
            "more than {PROPERTIES} properties"
        )));
    }
    let mut row = image.into_active_model();
    if let Some(name) = wanted.name.filter(|name| !name.is_empty()) {
        row.name = ActiveValue::Set(name);
    }
    if let Some(public) = wanted.public {
        row.public = ActiveValue::Set(public);
    }
    if let Some(source) = wanted.source {
        row.source = ActiveValue::Set(source);
    }
    if let Some(format) = wanted.format {
        row.format = ActiveValue::Set(format.name().to_owned());
    }
    if let Some(ram) = wanted.min_ram {
        row.min_ram = ActiveValue::Set(ram);
    }
    if let Some(disk) = wanted.min_disk {
        row.min_disk = ActiveValue::Set(disk);
    }
    row.properties = ActiveValue::Set(Value::Object(properties));
    row.updated_at = ActiveValue::Set(moment::now());
    let image = row.update(&transaction).await?;
    transaction.commit().await?;
    Ok(image)
}

/// Takes an image out of the registry; its data stays where it is.
///
/// # Errors
/// The image is not the caller's.
pub async fn remove(api: &Context, caller: &Caller, id: &str) -> Result<(), Fault> {
    let transaction = database::write(api.database()).await?;
    let image = own(&transaction, caller, id).await?;
    let now = moment::now();
    let mut row = image.into_active_model();
    row.status = ActiveValue::Set("DELETED".to_owned());
    row.updated_at = ActiveValue::Set(now);
    row.deleted_at = ActiveValue::Set(Some(now));
    row.update(&transaction).await?;
    transaction.commit().await?;
    Ok(())
}
