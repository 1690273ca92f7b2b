//! What the dispatcher asks of its database, as PostgreSQL logs it, and the same once more without
//! a dispatcher: by `psql` with prepared statements, and for SQLite by Python's module.

use std::collections::{BTreeMap, HashMap};
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

/// The transactions in a PostgreSQL log that lock a server, in order of their ends.
pub fn transactions(log: &str) -> Vec<Vec<Statement>> {
    let mut open: BTreeMap<&str, Vec<Statement>> = BTreeMap::new();
    let mut done = Vec::new();
    for line in log.lines() {
        let Some((pid, rest)) = line
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once("] "))
        else {
            continue;
        };
        if let Some(parameters) = rest.strip_prefix("DETAIL:  parameters: ") {
            if let Some(last) = open.get_mut(pid).and_then(|list| list.last_mut()) {
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
        if text.starts_with("BEGIN") {
            open.insert(pid, Vec::new());
        } else if text.starts_with("COMMIT") || text.starts_with("ROLLBACK") {
            let list = open.remove(pid).unwrap_or_default();
            if list.iter().any(|one| one.text.contains("FOR UPDATE")) {
                done.push(list);
            }
        } else if let Some(list) = open.get_mut(pid) {
            list.push(Statement {
                text: text.to_owned(),
                parameters: Vec::new(),
            });
        }
    }
    done
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
    transactions: &[Vec<Statement>],
    connections: usize,
) -> Duration {
    let mut files = Vec::new();
    for connection in 0..connections {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let (mut prepared, mut issued) = (String::new(), String::new());
        for transaction in transactions.iter().skip(connection).step_by(connections) {
            issued.push_str("BEGIN;\n");
            for statement in transaction {
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
            issued.push_str("COMMIT;\n");
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
for transaction in transactions:
    base.execute('BEGIN IMMEDIATE')
    for text, values in transaction:
        base.execute(text, values).fetchall()
    base.execute('COMMIT')
print(time.monotonic() - begun)
";

/// Issues the transactions on an SQLite file; how long that took.
pub fn by_sqlite(file: &Path, folder: &Path, transactions: &[Vec<Statement>]) -> Duration {
    // Its dialect has other marks and other truths, and locks the whole of it.
    let mut translated = Vec::new();
    for transaction in transactions {
        let mut list = Vec::new();
        for statement in transaction {
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
        translated.push(list);
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
