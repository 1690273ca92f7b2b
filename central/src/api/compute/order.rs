//! What a user wants when creating a server, read from the body and checked as far as the body
//! alone allows.

use std::collections::BTreeSet;

use super::personality::Inside;
use super::{metadata, tags};
use crate::api::body::{Body, Field, Object};
use crate::api::fault::Fault;
use crate::api::nic::{NICS, WantedNic};

/// A server to be created.
pub struct Order {
    pub name: String,
    pub image: String,
    pub flavor: String,
    pub metadata: Vec<(String, String)>,
    /// None: the caller leaves it to us.
    pub networks: Option<Vec<Wanted>>,
    pub key_name: Option<String>,
    pub inside: Inside,
    pub tags: BTreeSet<String>,
}

/// What the server is to be plugged in with.
pub enum Wanted {
    New(WantedNic),
    /// A port that exists, by its id.
    Port(String),
}

impl Order {
    /// Reads the body.
    ///
    /// # Errors
    /// 400 naming the field.
    pub fn parse(body: &Body) -> Result<Self, Fault> {
        let server = body.member("server")?;
        for name in ["min_count", "max_count"] {
            if let Some(field) = server.get(name)
                && field.integer(1..=i64::MAX)? != 1
            {
                return Err(field.refuse("one server is made at a time"));
            }
        }
        let metadata = match server.get("metadata") {
            Some(field) => metadata::parse(&field.object()?)?,
            None => Vec::new(),
        };
        let key_name = match server.get("key_name") {
            Some(field) => Some(field.name(255)?.to_owned()),
            None => None,
        };
        Ok(Self {
            name: server.required("name")?.name(255)?.to_owned(),
            image: server.required("imageRef")?.reference()?,
            flavor: server.required("flavorRef")?.reference()?,
            metadata,
            networks: networks(&server)?,
            key_name,
            inside: Inside::parse(&server)?,
            tags: match server.get("tags") {
                Some(field) => tags::parse(&field)?,
                None => BTreeSet::new(),
            },
        })
    }
}

fn networks(server: &Object<'_>) -> Result<Option<Vec<Wanted>>, Fault> {
    let Some(field) = server.get("networks") else {
        return Ok(None);
    };
    match field.value().as_str() {
        Some("auto") => return Ok(None),
        Some("none") => return Ok(Some(Vec::new())),
        _ => {}
    }
    field
        .list(NICS)?
        .iter()
        .map(nic)
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}

fn nic(field: &Field<'_>) -> Result<Wanted, Fault> {
    let nic = field.object()?;
    if let Some(port) = nic.get("port") {
        return Ok(Wanted::Port(port.reference()?));
    }
    let address = match nic.get("fixed_ip") {
        Some(field) => Some(
            field
                .string()?
                .parse()
                .map_err(|_| field.refuse("must be an IPv4 address"))?,
        ),
        None => None,
    };
    Ok(Wanted::New(WantedNic {
        network: nic.required("uuid")?.reference()?,
        address,
    }))
}
