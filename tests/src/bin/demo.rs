//! `make demo`: the whole chain for real, with a guest, in namespaces of its own.
//!
//! `demo` runs it and leaves nothing behind; `demo --keep` leaves it up; `demo --down` takes a
//! chain that was left up down.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::chain::timeline::Timeline;
use harness::chain::{Chain, Remains, story};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Shows the whole chain on this machine: a real Ganeti cluster, a guest, its network, the API.
#[derive(Debug, Parser)]
struct Arguments {
    /// Leave the chain up at the end, with a server, and say how to reach it.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Take down a chain that was left up.
    #[arg(long)]
    down: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end_on_signals();
    let result = if arguments.down {
        take_down()
    } else {
        run(arguments.keep)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(keep: bool) -> Result<()> {
    ensure!(
        nix::unistd::Uid::effective().is_root(),
        "must be root: it makes namespaces"
    );
    ensure!(
        !state_file().exists(),
        "a chain is up already ({}): take it down first: make demo-down",
        state_file().display()
    );
    if keep {
        harness::process::outlive();
    }
    let mut timeline = Timeline::default();
    let chain = Chain::start(&mut timeline)?;
    let told = story::tell(&chain, &mut timeline);
    if told.is_err() {
        eprintln!("{}", chain.logs());
    }
    println!("{}", timeline.table());
    if !keep {
        drop(chain);
        harness::scratch::remove_all();
        told?;
        println!("Every step was seen to happen, in the guest and in the API.");
        return Ok(());
    }
    let server = timeline.step("a server to play with", || {
        story::create_and_wait(&chain, &story::log_in(&chain)?, "play")
    });
    let directions = chain.directions();
    remember(&chain.release())?;
    println!("\nThe chain is up.\n{directions}Take it down:      make demo-down");
    if let Ok(server) = &server {
        println!("The server:        id {}", server.id);
    }
    told?;
    server.map(drop)
}

/// Where a chain that was left up is remembered.
fn state_file() -> PathBuf {
    harness::target_dir().join("demo.json")
}

fn remember(remains: &Remains) -> Result<()> {
    let pids: Vec<i32> = remains.pids.iter().map(|pid| pid.as_raw()).collect();
    let state = json!({"pids": pids, "folder": remains.folder});
    fs::write(state_file(), state.to_string()).context("remembering the chain")
}

fn take_down() -> Result<()> {
    let path = state_file();
    let text = fs::read_to_string(&path).context("no chain was left up")?;
    let state: Value = serde_json::from_str(&text)?;
    let pids = state
        .get("pids")
        .and_then(Value::as_array)
        .context("no pids")?;
    let remains = Remains {
        pids: pids
            .iter()
            .filter_map(|pid| Some(Pid::from_raw(i32::try_from(pid.as_i64()?).ok()?)))
            .collect(),
        folder: state
            .get("folder")
            .and_then(Value::as_str)
            .context("no folder")?
            .into(),
    };
    remains.take_down()?;
    fs::remove_file(path)?;
    println!("The chain is down.");
    Ok(())
}

/// On Ctrl-C all children end by themselves, since they are tied to this process; only the
/// files need a hand.
fn end_on_signals() {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // before any other thread: they inherit it. `Command` gives children an empty mask.
    if signals.thread_block().is_err() {
        return;
    }
    thread::spawn(move || {
        let signal = signals.wait();
        harness::scratch::remove_all();
        eprintln!(
            "\ndemo: ended by {}",
            signal.map_or("a signal", Signal::as_str)
        );
        std::process::exit(130);
    });
}
