//! `snf-central instance`: instances and networks in the clusters that carry our prefix and that
//! the database does not know.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use sea_orm::{ColumnTrait, Condition, DatabaseConnection, EntityTrait, QueryFilter};
use serde_json::{Value, json};

use super::table;
use crate::config::Config;
use crate::ganeti::submission::Submitter;
use crate::model::entity::{backend, flavor, image, project, user};
use crate::reconcile::adoption::{self, Adoption};
use crate::reconcile::difference::{Object, What};
use crate::reconcile::pass;
use crate::reconcile::seen::{self, Instance};
use crate::serve;

/// The commands about unknown instances.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the instances and networks that carry our prefix and that nobody here knows
    List {
        /// Print JSON in the place of a table
        #[arg(long)]
        json: bool,
    },
    /// Make a server of an unknown instance
    Adopt(Adopt),
    /// Remove an unknown instance and its disks
    Remove {
        /// The name of the instance
        name: String,
        /// The backend, if several have an instance of this name
        #[arg(long, value_name = "NAME")]
        backend: Option<String>,
        /// Say that the instance and all that is on its disks is to be destroyed
        #[arg(long)]
        destroy: bool,
    },
}

/// The parts of a server.
#[derive(Debug, clap::Args)]
pub struct Adopt {
    /// The name of the instance
    pub name: String,
    /// The project that it is to belong to, by name or id
    #[arg(long, value_name = "PROJECT")]
    pub project: String,
    /// The user that it is to belong to, by name or id
    #[arg(long, value_name = "USER")]
    pub user: String,
    /// The backend, if several have an instance of this name
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// The flavor, by name or id, if none is like the instance
    #[arg(long, value_name = "FLAVOR")]
    pub flavor: Option<String>,
    /// The image, by name or id, if not just one has the OS of the instance
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The name that users see, if not that of the instance
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
}

/// Does it.
///
/// # Errors
/// A cluster cannot be asked, the database fails, or it cannot be done.
pub async fn run(config: &Config, command: &Command) -> anyhow::Result<()> {
    let database = super::open(config).await?;
    let ganeti = serve::submitter(config, database);
    match command {
        Command::List { json } => list(&ganeti, *json).await,
        Command::Adopt(options) => adopt(&ganeti, options).await,
        Command::Remove {
            name,
            backend,
            destroy,
        } => {
            if !destroy {
                bail!(
                    "{name}: the instance and all that is on its disks would be destroyed: say \
                     --destroy if that is meant"
                );
            }
            let backend = backend_of(&ganeti, name, backend.as_deref()).await?;
            let job = adoption::remove(&ganeti, &backend, name).await?;
            println!("{name} is removed by job {job} of backend {}", backend.name);
            Ok(())
        }
    }
}

async fn backends(ganeti: &Submitter) -> anyhow::Result<Vec<backend::Model>> {
    let backends = backend::Entity::find().filter(backend::Column::Offline.eq(false));
    Ok(backends.all(&ganeti.database).await?)
}

/// Something that nobody here knows.
struct Unknown {
    backend: String,
    kind: &'static str,
    name: String,
    note: String,
    instance: Option<Instance>,
}

async fn list(ganeti: &Arc<Submitter>, as_json: bool) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let mut troubles = Vec::new();
    for backend in backends(ganeti).await? {
        let look = match pass::look(ganeti, &backend).await {
            Ok(look) => look,
            Err(error) => {
                troubles.push(format!("backend {}: {error}", backend.name));
                continue;
            }
        };
        let rapi = ganeti.clients.of(&backend)?;
        for difference in look.differences {
            let kind = match (difference.what, difference.object) {
                (What::Orphan, Object::Server(_)) => "instance",
                (What::Orphan, Object::Network(_)) => "network",
                _ => continue,
            };
            let instance = match kind {
                "instance" => rapi.instance(&difference.after).await?,
                _ => None,
            };
            found.push(Unknown {
                backend: backend.name.clone(),
                kind,
                name: difference.after,
                note: difference.before,
                instance: instance.and_then(|answer| seen::instance(answer).ok()),
            });
        }
    }
    if as_json {
        let list: Vec<Value> = found.iter().map(Unknown::json).collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
    } else if found.is_empty() {
        println!("nothing is unknown");
    } else {
        let titles = [
            "BACKEND", "KIND", "NAME", "STATE", "VCPUS", "MEMORY", "DISKS", "NICS", "NOTE",
        ];
        let mut rows = vec![titles.map(str::to_owned)];
        rows.extend(found.iter().map(Unknown::row));
        print!("{}", table::lines(&rows));
    }
    for trouble in &troubles {
        eprintln!("{trouble}");
    }
    if !troubles.is_empty() {
        bail!("{} backends could not be looked at", troubles.len());
    }
    Ok(())
}

impl Unknown {
    fn state(&self) -> &'static str {
        match self.instance.as_ref().and_then(|instance| instance.running) {
            Some(true) => "running",
            Some(false) => "stopped",
            None => "-",
        }
    }

    fn nics(&self) -> Vec<String> {
        let nics = self.instance.iter().flat_map(|instance| &instance.nics);
        nics.map(|nic| {
            let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            format!("{} {} {}", part(&nic.network), part(&nic.ip), nic.mac)
        })
        .collect()
    }

    fn disks(&self) -> Vec<u64> {
        let disks = self.instance.iter().flat_map(|instance| &instance.disks);
        disks.map(|disk| disk.size).collect()
    }

    fn shape(&self) -> Option<(i64, i64)> {
        self.instance.as_ref()?.shape
    }

    fn json(&self) -> Value {
        json!({
            "backend": self.backend,
            "kind": self.kind,
            "name": self.name,
            "state": self.state(),
            "vcpus": self.shape().map(|shape| shape.0),
            "memory_mib": self.shape().map(|shape| shape.1),
            "disks_mib": self.disks(),
            "nics": self.nics(),
            "note": self.note,
        })
    }

    fn row(&self) -> [String; 9] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let list = |list: Vec<String>| or_dash((!list.is_empty()).then(|| list.join("; ")));
        let disks = self.disks().into_iter().map(|size| format!("{size} MiB"));
        [
            self.backend.clone(),
            self.kind.to_owned(),
            self.name.clone(),
            self.state().to_owned(),
            or_dash(self.shape().map(|shape| shape.0.to_string())),
            or_dash(self.shape().map(|shape| format!("{} MiB", shape.1))),
            list(disks.collect()),
            list(self.nics()),
            self.note.clone(),
        ]
    }
}

/// The backend that has an instance of this name, or the one that is named.
async fn backend_of(
    ganeti: &Arc<Submitter>,
    instance: &str,
    named: Option<&str>,
) -> anyhow::Result<backend::Model> {
    let mut found = Vec::new();
    for backend in backends(ganeti).await? {
        if named.is_some_and(|name| name != backend.name) {
            continue;
        }
        let rapi = ganeti.clients.of(&backend)?;
        let answer = rapi.instance(instance).await;
        let answer = answer.with_context(|| format!("backend {}", backend.name))?;
        if answer.is_some() {
            found.push(backend);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(backend), true) => Ok(backend),
        (None, _) => bail!("no backend has an instance {instance:?}"),
        (Some(_), false) => bail!("several backends have an instance {instance:?}: name one"),
    }
}

async fn adopt(ganeti: &Arc<Submitter>, options: &Adopt) -> anyhow::Result<()> {
    let database = &ganeti.database;
    let backend = backend_of(ganeti, &options.name, options.backend.as_deref()).await?;
    let project = project_id(database, &options.project).await?;
    let user = user_id(database, &options.user).await?;
    let flavor_id = match &options.flavor {
        Some(name) => Some(flavor_id(database, name).await?),
        None => None,
    };
    let image_id = match &options.image {
        Some(name) => Some(image_id(database, name).await?),
        None => None,
    };
    let adoption = Adoption {
        instance: &options.name,
        project_id: &project,
        user_id: &user,
        flavor_id,
        image_id: image_id.as_deref(),
        name: options.server_name.as_deref(),
    };
    let adopted = adoption::adopt(ganeti, &backend, &adoption).await?;
    println!(
        "{} is server {} of project {}, with flavor {} and image {}",
        options.name, adopted.server_id, options.project, adopted.flavor, adopted.image
    );
    for note in adopted.notes {
        println!("{note}");
    }
    Ok(())
}

async fn project_id(database: &DatabaseConnection, name: &str) -> anyhow::Result<String> {
    let named = Condition::any()
        .add(project::Column::Id.eq(name))
        .add(project::Column::Name.eq(name));
    let row = project::Entity::find().filter(named).one(database).await?;
    Ok(row.with_context(|| format!("no project {name:?}"))?.id)
}

async fn user_id(database: &DatabaseConnection, name: &str) -> anyhow::Result<String> {
    let named = Condition::any()
        .add(user::Column::Id.eq(name))
        .add(user::Column::Name.eq(name));
    let row = user::Entity::find().filter(named).one(database).await?;
    Ok(row.with_context(|| format!("no user {name:?}"))?.id)
}

async fn flavor_id(database: &DatabaseConnection, name: &str) -> anyhow::Result<i64> {
    let mut named = Condition::any().add(flavor::Column::Name.eq(name));
    if let Ok(id) = name.parse::<i64>() {
        named = named.add(flavor::Column::Id.eq(id));
    }
    let row = flavor::Entity::find().filter(named).one(database).await?;
    Ok(row.with_context(|| format!("no flavor {name:?}"))?.id)
}

async fn image_id(database: &DatabaseConnection, name: &str) -> anyhow::Result<String> {
    let named = Condition::any()
        .add(image::Column::Id.eq(name))
        .add(image::Column::Name.eq(name));
    let mut rows = image::Entity::find()
        .filter(named)
        .filter(image::Column::DeletedAt.is_null())
        .all(database)
        .await?;
    match (rows.pop(), rows.is_empty()) {
        (Some(image), true) => Ok(image.id),
        (None, _) => bail!("no image {name:?}"),
        (Some(_), false) => bail!("several images are called {name:?}: give the id"),
    }
}
