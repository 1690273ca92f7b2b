//! The figures, collected and printed.

use std::collections::{BTreeMap, BTreeSet};

use crate::responder::Who;
use crate::statistics::median;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    /// Where it stands in the table.
    pub place: usize,
    /// What it is, with its unit.
    pub name: &'static str,
    /// Digits behind the point.
    pub digits: usize,
}

/// Figures of several rounds.
#[derive(Default)]
pub struct Table {
    samples: BTreeMap<Figure, BTreeMap<Who, Vec<f64>>>,
}

impl Table {
    /// Notes one.
    pub fn note(&mut self, figure: Figure, who: Who, value: f64) {
        let row = self.samples.entry(figure).or_default();
        row.entry(who).or_default().push(value);
    }

    /// Prints them under a title: nfdhcpd's, then those of each other, and the ratio of nfdhcpd's
    /// median to the other's.
    pub fn print(&self, title: &str) {
        let all = self.samples.values().flat_map(BTreeMap::keys);
        let others: BTreeSet<Who> = all.filter(|who| **who != Who::Nfdhcpd).copied().collect();
        print!("\n{title}\n  {:<34} {:>24}", "", "nfdhcpd");
        for other in &others {
            print!(" {:>24} {:>7}", other.name(), "ratio");
        }
        println!();
        for (figure, row) in &self.samples {
            let ours = row.get(&Who::Nfdhcpd).map_or(&[][..], Vec::as_slice);
            print!("  {:<34} {:>24}", figure.name, text(ours, figure.digits));
            for other in &others {
                let theirs = row.get(other).map_or(&[][..], Vec::as_slice);
                let ratio = match (median(ours), median(theirs)) {
                    (Some(ours), Some(theirs)) => format!("{:.2}", ours / theirs),
                    _ => String::new(),
                };
                print!(" {:>24} {ratio:>7}", text(theirs, figure.digits));
            }
            println!();
        }
    }
}

/// The median, and in brackets least and most.
pub fn text(values: &[f64], digits: usize) -> String {
    let Some(median) = median(values) else {
        return "-".to_owned();
    };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{median:.digits$} [{least:.digits$}-{most:.digits$}]")
}
