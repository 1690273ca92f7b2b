//! `snf-central user|project|token|backend|flavor|image|network|address|quota|server`: what is in the
//! database, and what operators change in it.

mod change;
mod list;

use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::config::Config;
use crate::model::history::Question;
use crate::model::moment;

/// How a list is shown.
#[derive(Debug, Args)]
pub struct Shown {
    /// Print JSON in the place of a table
    #[arg(long)]
    pub json: bool,
}

/// Who is meant.
#[derive(Debug, Args)]
pub struct Named {
    /// Its name or its id
    pub name: String,
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub enum User {
    /// List them
    List(Shown),
    /// Let one log in again
    Enable(Named),
    /// Let one log in no more; tokens are worth nothing from now on
    Disable(Named),
    /// Give one another password, which is read from standard input, of at most 255 bytes; all
    /// tokens end but those of a seed
    Password(Named),
    /// Make a user an administrator of the cloud, in every project that the user works in
    GrantAdmin(Named),
    /// Make a user an administrator of the cloud no more; roles in projects stay
    RevokeAdmin(Named),
}

/// What to do with projects.
#[derive(Debug, Subcommand)]
pub enum Project {
    /// List them
    List(Shown),
    /// Let its members log in again
    Enable(Named),
    /// Let nobody log in to it; tokens for it are worth nothing until it is enabled again
    Disable(Named),
    /// Make a user a member, or give a member another role
    Join {
        /// The project's name or id
        project: String,
        /// The user's name or id
        user: String,
        /// Make an administrator of the project, not of the cloud: see `user grant-admin`
        #[arg(long)]
        admin: bool,
    },
    /// Put a user out; tokens for the project are worth nothing from now on
    Leave {
        /// The project's name or id
        project: String,
        /// The user's name or id
        user: String,
    },
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// List those that are good, by the beginning of their hash: the tokens are not kept
    List(Shown),
    /// Take back all of a user's tokens, those of a seed too
    Revoke(Named),
}

/// What to do with clusters.
#[derive(Debug, Subcommand)]
pub enum Backend {
    /// List them
    List(Shown),
    /// Place no new servers there
    Drain(Named),
    /// Place new servers there again
    Undrain(Named),
    /// Ask nothing of it
    Offline(Named),
    /// Ask it again
    Online(Named),
}

/// What to do with flavors.
#[derive(Debug, Subcommand)]
pub enum Flavor {
    /// List them
    List(Shown),
    /// Make no new servers of it
    Close(Named),
    /// Make new servers of it again
    Open(Named),
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// List them
    List(Shown),
    /// Show one to everybody
    Publish(Named),
    /// Show one to its project only
    Withdraw(Named),
}

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// List them
    List(Shown),
    /// Plug no new NICs in
    Drain(Named),
    /// Plug new NICs in again
    Undrain(Named),
}

/// What to do with addresses.
#[derive(Debug, Subcommand)]
pub enum Address {
    /// Show which servers had an address, or which addresses a server had, and when
    History {
        /// The address, of IPv4 or IPv6
        #[arg(required_unless_present = "server")]
        address: Option<IpAddr>,
        /// The server's id
        #[arg(long, value_name = "ID")]
        server: Option<i64>,
        /// Only what was so at this time, as 2026-11-22T18:02:26Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        at: Option<i64>,
        /// How it is shown
        #[command(flatten)]
        shown: Shown,
    },
}

fn time(text: &str) -> Result<i64, String> {
    moment::parse_iso(text).ok_or_else(|| "not a time, as 2026-11-22T18:02:26Z".to_owned())
}

/// What to do with quotas.
#[derive(Debug, Subcommand)]
pub enum Quota {
    /// List what a project has and may have
    List {
        /// The project's name or id
        project: String,
        /// How it is shown
        #[command(flatten)]
        shown: Shown,
    },
    /// Grant a resource to a project up to a limit, within which its administrators may set a lower one
    Set {
        /// The project's name or id
        project: String,
        /// The resource: `servers`, `total_cpu`, `cpu`, `total_ram`, `ram` (MiB), `disk` (GiB),
        /// `private_networks`, `floating_ips`, `volumes`, `ports`, `unattached_ports` (ports on no
        /// server), `subnets`, `images`, `keypairs` (of each user)
        resource: String,
        /// The most of it, or `unlimited`; none: the default, which is 100 for `private_networks`,
        /// `unattached_ports`, `subnets`, `images` and `keypairs`, 50 for `floating_ips`, and no
        /// limit for the others
        most: Option<String>,
    },
}

/// What to do with servers.
#[derive(Debug, Subcommand)]
pub enum Server {
    /// List them
    List(Shown),
    /// Show what the cluster said about one, newest first, in its own words
    Diagnostics {
        /// The server's id
        id: i64,
        /// The form of the list
        #[command(flatten)]
        shown: Shown,
    },
    /// Let its user do nothing to it
    Suspend(Named),
    /// Let its user do things to it again
    Resume(Named),
}

/// The objects that there are commands for.
#[derive(Debug)]
pub enum Command {
    /// Users
    User(User),
    /// Projects and their members
    Project(Project),
    /// Tokens
    Token(Token),
    /// Clusters
    Backend(Backend),
    /// Flavors
    Flavor(Flavor),
    /// Images
    Image(Image),
    /// Networks
    Network(Network),
    /// Addresses
    Address(Address),
    /// Limits of projects
    Quota(Quota),
    /// Servers
    Server(Server),
}

/// Does it.
///
/// # Errors
/// The database fails; what is named is not there.
pub async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    let database = super::open(config).await?;
    let database = &database;
    match command {
        Command::User(User::List(shown)) => shown.print(list::users(database).await?),
        Command::User(User::Enable(user)) => change::enable(database, &user.name, true).await,
        Command::User(User::Disable(user)) => change::enable(database, &user.name, false).await,
        Command::User(User::Password(user)) => change::password(database, &user.name).await,
        Command::User(User::GrantAdmin(user)) => change::grant(database, &user.name, true).await,
        Command::User(User::RevokeAdmin(user)) => change::grant(database, &user.name, false).await,
        Command::Project(Project::List(shown)) => shown.print(list::projects(database).await?),
        Command::Project(Project::Enable(project)) => {
            change::open(database, &project.name, true).await
        }
        Command::Project(Project::Disable(project)) => {
            change::open(database, &project.name, false).await
        }
        Command::Project(Project::Join {
            project,
            user,
            admin,
        }) => change::join(database, &project, &user, admin).await,
        Command::Project(Project::Leave { project, user }) => {
            change::leave(database, &project, &user).await
        }
        Command::Token(Token::List(shown)) => shown.print(list::tokens(database).await?),
        Command::Token(Token::Revoke(user)) => change::revoke(database, &user.name).await,
        Command::Backend(Backend::List(shown)) => shown.print(list::backends(database).await?),
        Command::Backend(Backend::Drain(name)) => {
            change::drain_backend(database, &name.name, true).await
        }
        Command::Backend(Backend::Undrain(name)) => {
            change::drain_backend(database, &name.name, false).await
        }
        Command::Backend(Backend::Offline(name)) => {
            change::offline(database, &name.name, true).await
        }
        Command::Backend(Backend::Online(name)) => {
            change::offline(database, &name.name, false).await
        }
        Command::Flavor(Flavor::List(shown)) => shown.print(list::flavors(database).await?),
        Command::Flavor(Flavor::Close(name)) => change::flavor(database, &name.name, false).await,
        Command::Flavor(Flavor::Open(name)) => change::flavor(database, &name.name, true).await,
        Command::Image(Image::List(shown)) => shown.print(list::images(database).await?),
        Command::Image(Image::Publish(name)) => change::image(database, &name.name, true).await,
        Command::Image(Image::Withdraw(name)) => change::image(database, &name.name, false).await,
        Command::Network(Network::List(shown)) => shown.print(list::networks(database).await?),
        Command::Network(Network::Drain(name)) => {
            change::drain_network(database, &name.name, true).await
        }
        Command::Network(Network::Undrain(name)) => {
            change::drain_network(database, &name.name, false).await
        }
        Command::Address(Address::History {
            address,
            server,
            at,
            shown,
        }) => {
            let question = Question {
                address,
                server_id: server,
                at,
            };
            shown.print(list::address_history(database, question).await?)
        }
        Command::Quota(Quota::List { project, shown }) => {
            shown.print(list::quotas(database, &project).await?)
        }
        Command::Quota(Quota::Set {
            project,
            resource,
            most,
        }) => change::quota(database, &project, &resource, most.as_deref()).await,
        Command::Server(Server::List(shown)) => shown.print(list::servers(database).await?),
        Command::Server(Server::Diagnostics { id, shown }) => {
            shown.print(list::diagnostics(database, id).await?)
        }
        Command::Server(Server::Suspend(id)) => change::suspend(database, &id.name, true).await,
        Command::Server(Server::Resume(id)) => change::suspend(database, &id.name, false).await,
    }
}

/// A list: the names of its columns, and its rows.
struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Shown {
    fn print(&self, table: Table) -> anyhow::Result<()> {
        if self.json {
            let rows: Vec<Value> = table
                .rows
                .into_iter()
                .map(|row| {
                    let names = table.columns.iter().map(|name| (*name).to_owned());
                    Value::Object(names.zip(row).collect())
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        } else {
            print!("{}", table.text());
        }
        Ok(())
    }
}

impl Table {
    /// Columns as wide as what is in them, two spaces apart; the last one has no padding.
    fn text(&self) -> String {
        let head = self
            .columns
            .iter()
            .map(|name| name.to_uppercase())
            .collect();
        let mut lines: Vec<Vec<String>> = vec![head];
        lines.extend(
            self.rows
                .iter()
                .map(|row| row.iter().map(cell).collect::<Vec<String>>()),
        );
        let mut widths = vec![0; self.columns.len()];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for line in &lines {
            let mut shown = String::new();
            for (width, cell) in widths.iter().zip(line) {
                let padding = width.saturating_sub(cell.chars().count());
                shown.push_str(cell);
                shown.push_str(&" ".repeat(padding.saturating_add(2)));
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A value as a table shows it; what users have named cannot move a terminal's cursor.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars()
        .map(|character| match character.is_control() {
            true => '?',
            false => character,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let table = Table {
            columns: &["id", "name", "public"],
            rows: vec![
                vec![json!(1), json!("né\u{1b}[2J"), json!(true)],
                vec![json!(1000), Value::Null, json!(false)],
            ],
        };
        assert_eq!(
            table.text(),
            "ID    NAME    PUBLIC\n1     né?[2J  yes\n1000  -       no\n"
        );
    }
}
