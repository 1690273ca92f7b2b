//! Figures as they are printed, each with the target it is held against.

use std::process::ExitCode;

/// What has been printed.
#[derive(Default)]
pub struct Report {
    missed: bool,
}

impl Report {
    /// A figure without a target.
    pub fn figure(&self, what: &str, value: f64, unit: &str) {
        println!("{what:<60} {value:>10.2} {unit}");
    }

    /// A figure, and whether it is as good as `target` says.
    pub fn target(&mut self, what: &str, value: f64, unit: &str, good: bool, target: &str) {
        self.missed |= !good;
        let verdict = if good { "ok" } else { "MISSED" };
        println!("{what:<60} {value:>10.2} {unit:<8} {verdict} (target {target})");
    }

    /// Whether every target was reached.
    pub fn exit(self) -> ExitCode {
        if self.missed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}
