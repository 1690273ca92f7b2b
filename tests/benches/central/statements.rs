//! What the dispatcher asks of its database, as PostgreSQL logs it, and the same once more without
//! a dispatcher: by `psql` with prepared statements, and for SQLite by Python's module.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::postgres::Postgres;

/// A statement and its parameters; none: NULL.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    text: String,
    parameters: Vec<Option<String>>,
}

/// What is committed at once.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub statements: Vec<Statement>,
    /// The server process that it came to.
    pid: String,
    /// Between BEGIN and COMMIT; else one statement that is committed by itself.
    explicit: bool,
}

impl Transaction {
    fn marks(&self) -> (&'static str, &'static str) {
        if self.explicit {
            ("BEGIN;\n", "COMMIT;\n")
        } else {
            ("", "")
        }
    }

    /// Those of the dispatcher lock a server, or are one change of one.
    fn is_the_dispatchers(&self) -> bool {
        let mut texts = self.statements.iter().map(|one| one.text.as_str());
        if self.explicit {
            texts.any(|text| text.contains("FOR UPDATE"))
        } else {
            texts.any(|text| text.starts_with("UPDATE \"servers\""))
        }
    }
}

/// The transactions of the dispatcher in a PostgreSQL log, in order of their ends.
pub fn transactions(log: &str) -> Vec<Transaction> {
    let mut open: BTreeMap<&str, Vec<Statement>> = BTreeMap::new();
    // Those whose parameters may still come.
    let mut alone: BTreeMap<&str, usize> = BTreeMap::new();
    let mut done: Vec<Transaction> = Vec::new();
    for line in log.lines() {
        let Some((pid, rest)) = line
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once("] "))
        else {
            continue;
        };
        if let Some(parameters) = rest.strip_prefix("DETAIL:  parameters: ") {
            let list = match (open.get_mut(pid), alone.get(pid)) {
                (Some(list), _) => list,
                (None, Some(index)) => &mut done[*index].statements,
                (None, None) => continue,
            };
            if let Some(last) = list.last_mut() {
                last.parameters = values(parameters);
            }
            continue;
        }
        let Some(text) = rest.strip_prefix("LOG:  ") else {
            continue;
        };
        let Some((_, text)) = text.split_once(": ") else {
            continue;
        };
        let statement = Statement {
            text: text.to_owned(),
            parameters: Vec::new(),
        };
        if text.starts_with("BEGIN") {
            open.insert(pid, Vec::new());
        } else if text.starts_with("COMMIT") || text.starts_with("ROLLBACK") {
            alone.remove(pid);
            done.push(Transaction {
                statements: open.remove(pid).unwrap_or_default(),
                pid: pid.to_owned(),
                explicit: true,
            });
        } else if let Some(list) = open.get_mut(pid) {
            list.push(statement);
        } else {
            alone.insert(pid, done.len());
            done.push(Transaction {
                statements: vec![statement],
                pid: pid.to_owned(),
                explicit: false,
            });
        }
    }
    done.retain(Transaction::is_the_dispatchers);
    done
}

/// Over how many connections they came.
pub fn connections(transactions: &[Transaction]) -> usize {
    let pids: BTreeSet<&str> = transactions.iter().map(|one| one.pid.as_str()).collect();
    pids.len()
}

/// `$1 = 'it''s', $2 = NULL`
fn values(text: &str) -> Vec<Option<String>> {
    let mut values = Vec::new();
    let mut rest = text;
    while let Some((_, value)) = rest.split_once(" = ") {
        let Some(quoted) = value.strip_prefix('\'') else {
            values.push(None);
            rest = value;
            continue;
        };
        let mut content = String::new();
        let mut characters = quoted.char_indices().peekable();
        let mut end = quoted.len();
        while let Some((index, character)) = characters.next() {
            if character == '\'' {
                if characters.peek().is_some_and(|(_, next)| *next == '\'') {
                    characters.next();
                } else {
                    end = index;
                    break;
                }
            }
            content.push(character);
        }
        values.push(Some(content));
        rest = &quoted[end..];
    }
    values
}

/// Issues the transactions over so many connections at once; how long that took.
pub fn by_psql(
    server: &Postgres,
    folder: &Path,
    transactions: &[Transaction],
    connections: usize,
) -> Duration {
    let mut files = Vec::new();
    for connection in 0..connections {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let (mut prepared, mut issued) = (String::new(), String::new());
        for transaction in transactions.iter().skip(connection).step_by(connections) {
            let (begin, commit) = transaction.marks();
            issued.push_str(begin);
            for statement in &transaction.statements {
                let next = numbers.len();
                let number = *numbers.entry(&statement.text).or_insert_with(|| {
                    writeln!(prepared, "PREPARE s{next} AS {};", statement.text).unwrap();
                    next
                });
                let list: Vec<String> = statement.parameters.iter().map(literal).collect();
                match list.as_slice() {
                    [] => writeln!(issued, "EXECUTE s{number};"),
                    _ => writeln!(issued, "EXECUTE s{number}({});", list.join(",")),
                }
                .unwrap();
            }
            issued.push_str(commit);
        }
        let file = folder.join(format!("statements{connection}.sql"));
        fs::write(&file, format!("\\o /dev/null\n{prepared}{issued}")).unwrap();
        files.push(file);
    }
    let begun = Instant::now();
    let mut children: Vec<_> = files
        .iter()
        .map(|file| {
            let mut command = server.psql("snf", &format!("\\i {}", file.display()));
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success(), "psql");
    }
    begun.elapsed()
}

fn literal(value: &Option<String>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) => format!("'{}'", text.replace('\'', "''")),
    }
}

const REPLAY: &str = "
import json, sqlite3, sys, time
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute('PRAGMA journal_mode=WAL'); base.execute('PRAGMA synchronous=NORMAL')
base.execute('PRAGMA foreign_keys=ON')
transactions = json.load(open(sys.argv[2]))
begun = time.monotonic()
for explicit, transaction in transactions:
    if explicit: base.execute('BEGIN IMMEDIATE')
    for text, values in transaction:
        base.execute(text, values).fetchall()
    if explicit: base.execute('COMMIT')
print(time.monotonic() - begun)
";

/// Issues the transactions on an SQLite file; how long that took.
pub fn by_sqlite(file: &Path, folder: &Path, transactions: &[Transaction]) -> Duration {
    // Its dialect has other marks and other truths, and locks the whole of it.
    let mut translated = Vec::new();
    for transaction in transactions {
        let mut list = Vec::new();
        for statement in &transaction.statements {
            let text = statement.text.replace('$', "?").replace(" FOR UPDATE", "");
            let values: Vec<Option<&str>> = statement
                .parameters
                .iter()
                .map(|value| match value.as_deref() {
                    Some("t") => Some("1"),
                    Some("f") => Some("0"),
                    other => other,
                })
                .collect();
            list.push((text, values));
        }
        translated.push((transaction.explicit, list));
    }
    let list = folder.join("statements.json");
    fs::write(&list, serde_json::to_vec(&translated).unwrap()).unwrap();
    let output = Command::new("python3")
        .args(["-c", REPLAY])
        .args([file, &list])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "python3");
    let seconds: f64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap();
    Duration::from_secs_f64(seconds)
}
