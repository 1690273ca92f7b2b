//! What the demo shows: a live line for the step it is at, and at the end how long each took.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The steps so far.
#[derive(Debug)]
pub struct Timeline {
    start: Instant,
    steps: Vec<(String, Duration)>,
    /// A terminal shows one line that changes; elsewhere (CI) each step has a line of its own.
    live: bool,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            steps: Vec::new(),
            live: io::stdout().is_terminal(),
        }
    }
}

impl Timeline {
    /// Does one step, shown by its name.
    ///
    /// # Errors
    /// That of the step, with its name in front.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        if self.live {
            print!(
                "\r\x1b[K[{:6.1} s] {name} …",
                self.start.elapsed().as_secs_f64()
            );
            let _ = io::stdout().flush();
        }
        let result = work();
        let took = begun.elapsed();
        let mark = if result.is_ok() { "ok" } else { "FAILED" };
        let clear = if self.live { "\r\x1b[K" } else { "" };
        println!(
            "{clear}[{:6.1} s] {name}: {mark} ({:.1} s)",
            self.start.elapsed().as_secs_f64(),
            took.as_secs_f64()
        );
        self.steps.push((name.to_owned(), took));
        result.with_context(|| format!("step {:?}", name))
    }

    /// The table of all steps.
    pub fn table(&self) -> String {
        let mut table = String::from("\n   seconds  step\n");
        for (name, took) in &self.steps {
            table += &format!("  {:8.1}  {name}\n", took.as_secs_f64());
        }
        table + &format!("  {:8.1}  in all\n", self.start.elapsed().as_secs_f64())
    }
}
