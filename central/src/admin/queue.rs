//! `snf-central queue`: the messages that could not be applied.

use anyhow::bail;
use clap::Subcommand;
use serde_json::Value;

use super::table;
use crate::config::Config;
use crate::dispatch::letters::{Letter, Letters};
use crate::model::moment;

/// What to do with the dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// List them: id, queue, when they were sent, why they are here
    List,
    /// Print one: why it is here, its routing key, its body
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Put one back into its queue, to be applied once more
    Retry(Which),
    /// Throw one away
    Drop(Which),
}

/// Which dead letters.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Its id, or the beginning of it
    pub id: Option<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
}

/// Does what is asked for.
///
/// # Errors
/// No broker answers, or there is no such letter.
pub async fn run(config: &Config, command: &Command) -> anyhow::Result<()> {
    let letters = Letters::open(&config.broker_urls, config.names.prefix()).await?;
    let all = letters.all().await?;
    match command {
        Command::List => print!("{}", list(&all)),
        Command::Show { id } => {
            for letter in chosen(&all, Some(id))? {
                print!("{}", show(letter));
            }
        }
        Command::Retry(which) => {
            for letter in chosen(&all, which.id.as_deref())? {
                letters.retry(letter).await?;
                println!("{}: back in {}", letter.id, letter.queue);
            }
        }
        Command::Drop(which) => {
            for letter in chosen(&all, which.id.as_deref())? {
                letters.drop(letter).await?;
                println!("{}: dropped", letter.id);
            }
        }
    }
    Ok(())
}

/// The letters that are meant: without an id, all.
fn chosen<'a>(all: &'a [Letter], id: Option<&str>) -> anyhow::Result<Vec<&'a Letter>> {
    let Some(id) = id else {
        return Ok(all.iter().collect());
    };
    let found: Vec<&Letter> = all
        .iter()
        .filter(|letter| !id.is_empty() && letter.id.starts_with(id))
        .collect();
    match found.as_slice() {
        [] => bail!("no dead letter {id:?}; there are {}", all.len()),
        // The same message several times has one id.
        [first, rest @ ..] if rest.iter().all(|other| other.id == first.id) => Ok(found),
        several => bail!("{id:?} is the beginning of {} ids", several.len()),
    }
}

fn list(all: &[Letter]) -> String {
    if all.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut rows = vec![["ID", "QUEUE", "SENT", "REASON"].map(str::to_owned)];
    for letter in all {
        rows.push([
            letter.id.clone(),
            letter.queue.clone(),
            sent(letter),
            letter.reason.clone(),
        ]);
    }
    table::lines(&rows)
}

fn sent(letter: &Letter) -> String {
    let micros = letter
        .sent_at
        .and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1_000_000));
    micros.map_or_else(|| "-".to_owned(), moment::iso)
}

fn show(letter: &Letter) -> String {
    let body = match serde_json::from_slice::<Value>(letter.body()) {
        Ok(value) => format!("{value:#}"),
        Err(_) => String::from_utf8_lossy(letter.body())
            .escape_debug()
            .to_string(),
    };
    format!(
        "id:          {}\nqueue:       {}\nrouting key: {}\nsent:        {}\nreason:      {}\n{body}\n",
        letter.id,
        letter.queue,
        letter.routing_key,
        sent(letter),
        letter.reason,
    )
}
