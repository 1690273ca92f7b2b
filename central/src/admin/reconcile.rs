//! `snf-central reconcile`: what differs between the clusters and the database, and its repair.

use std::time::Duration;

use anyhow::bail;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::table;
use crate::config::{Config, Limit};
use crate::ganeti::guard;
use crate::model::entity::backend;
use crate::reconcile::difference::Difference;
use crate::reconcile::pass::{self, Reconciler};
use crate::reconcile::pools;
use crate::serve;

/// What is to be done.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Show what differs, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only this backend
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Repair however many servers would change
    #[arg(long, conflicts_with = "dry_run")]
    pub force: bool,
    /// The time between the two looks, in seconds
    #[arg(
        long,
        default_value_t = 10,
        value_name = "SECONDS",
        conflicts_with = "dry_run"
    )]
    pub pause: u64,
}

/// An operator's acceptance of what stops the reconciler.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Acceptance {
    /// Accept that the database is older than its clusters, as after a restored backup: repairs
    /// and creations go on; unknown instances are only shown
    #[arg(long, conflicts_with_all = ["dry_run", "force", "take_over"])]
    pub accept_restored: bool,
    /// Take a cluster over that another database gives out names in, or that is another cluster
    /// than before; needs `--backend`
    #[arg(long, requires = "backend", conflicts_with_all = ["dry_run", "force"])]
    pub take_over: bool,
}

/// Prints what differs and, unless told not to, repairs what differs twice.
///
/// # Errors
/// A cluster cannot be looked at, too much would change, or the database fails; what could be
/// found out has been said by then.
pub async fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let database = super::open(config).await?;
    let ganeti = serve::submitter(config, database);
    if let Some(name) = &options.backend {
        let known = backend::Entity::find()
            .filter(backend::Column::Name.eq(name))
            .one(&ganeti.database)
            .await?;
        if known.is_none() {
            bail!("no backend is called {name:?}");
        }
    }
    let mut rows = vec![titles()];
    let mut troubles = Vec::new();
    if options.dry_run {
        let mut backends = backend::Entity::find()
            .filter(backend::Column::Offline.eq(false))
            .all(&ganeti.database)
            .await?;
        backends.retain(|row| {
            options
                .backend
                .as_ref()
                .is_none_or(|name| *name == row.name)
        });
        for backend in backends {
            match pass::look(&ganeti, &backend).await {
                Ok(look) => {
                    let differences = look.differences.iter();
                    rows.extend(differences.map(|found| row(&backend.name, found, "")));
                    // As it was found before: a look that changes nothing holds nothing.
                    if let Some(reason) = guard::held(&ganeti.database, backend.id).await? {
                        troubles.push(format!("backend {}: {reason}", backend.name));
                    }
                }
                Err(error) => troubles.push(format!("backend {}: {error}", backend.name)),
            }
        }
        if options.backend.is_none() {
            let differences = pools::all(&ganeti.database).await?;
            rows.extend(differences.iter().map(|found| row("-", found, "")));
        }
    } else {
        let limit = match options.force {
            true => Limit {
                percent: 100,
                few: usize::MAX,
            },
            false => config.reconcile_limit,
        };
        let mut reconciler = Reconciler::new(ganeti, limit);
        reconciler.pass(options.backend.as_deref()).await?;
        tokio::time::sleep(Duration::from_secs(options.pause)).await;
        for report in reconciler.pass(options.backend.as_deref()).await? {
            let name = report.backend.as_deref().unwrap_or("-");
            let repaired = report.repaired.iter();
            rows.extend(repaired.map(|found| row(name, found, "repaired")));
            let left = report.left.iter();
            rows.extend(left.map(|found| row(name, found, "left as it is")));
            troubles.extend(report.trouble.map(|text| format!("backend {name}: {text}")));
        }
    }
    if rows.len() == 1 {
        println!("nothing differs");
    } else {
        print!("{}", table::lines(&rows));
    }
    for trouble in &troubles {
        println!("{trouble}");
    }
    if !troubles.is_empty() {
        bail!("{} backends could not be reconciled", troubles.len());
    }
    Ok(())
}

/// Accepts what the reconciler has stopped at: in all backends, or in one.
///
/// # Errors
/// A cluster cannot be asked, or the database fails.
pub async fn accept(
    config: &Config,
    backend: Option<&str>,
    acceptance: Acceptance,
) -> anyhow::Result<()> {
    let database = super::open(config).await?;
    let ganeti = serve::submitter(config, database);
    let backends = backend::Entity::find()
        .filter(backend::Column::Offline.eq(false))
        .all(&ganeti.database)
        .await?;
    let is_meant = |row: &&backend::Model| backend.is_none_or(|name| name == row.name);
    if let Some(name) = backend
        && !backends.iter().any(|row| row.name == name)
    {
        bail!("no backend that is online is called {name:?}");
    }
    let mut troubles = Vec::new();
    for backend in backends.iter().filter(is_meant) {
        let name = &backend.name;
        let rapi = match ganeti.clients.of(backend) {
            Ok(rapi) => rapi,
            Err(error) => {
                troubles.push(format!("backend {name}: {error}"));
                continue;
            }
        };
        let place = guard::Place {
            database: &ganeti.database,
            naming: &ganeti.naming,
            backend,
            rapi: &rapi,
        };
        let result = match acceptance.take_over {
            true => place.take_over().await,
            false => place.accept().await.map(|_| ()),
        };
        match result {
            Ok(()) if acceptance.take_over => println!("backend {name}: taken over"),
            Ok(()) => println!("backend {name}: accepted"),
            Err(error) => troubles.push(format!("backend {name}: {error}")),
        }
    }
    if !troubles.is_empty() {
        for trouble in &troubles {
            println!("{trouble}");
        }
        bail!(
            "{} backends could not be asked; those that are away for long can be set offline, and \
             are looked at again when they are back",
            troubles.len()
        );
    }
    if acceptance.accept_restored {
        // Stamps that are ahead of all others first: then a second database of the same identity
        // notices that it is not the one that goes on.
        guard::go_on(&ganeti.database).await?;
        for backend in backends.iter().filter(is_meant) {
            let rapi = ganeti.clients.of(backend)?;
            let place = guard::Place {
                database: &ganeti.database,
                naming: &ganeti.naming,
                backend,
                rapi: &rapi,
            };
            place.stamp().await?;
        }
        println!(
            "repairs and creations go on; see `snf-central instance list` for what is unknown"
        );
    }
    Ok(())
}

fn titles() -> [String; 6] {
    ["BACKEND", "OBJECT", "WHAT", "DATABASE", "CLUSTER", ""].map(str::to_owned)
}

/// A difference as a row of the table.
fn row(backend: &str, difference: &Difference, done: &str) -> [String; 6] {
    let note = match (&difference.repair, done) {
        (None, _) => "for a person to look at",
        (Some(repair), "") if repair.destroys() => "would be removed",
        (Some(_), "") => "would be repaired",
        (Some(_), done) => done,
    };
    [
        backend.to_owned(),
        difference.object.to_string(),
        difference.what.to_string(),
        difference.before.clone(),
        difference.after.clone(),
        note.to_owned(),
    ]
}
