//! The figures, collected and printed.

use std::collections::BTreeMap;

use crate::responder::Who;

/// How a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    /// Where it stands in the table.
    pub place: usize,
    /// What it is, with its unit.
    pub name: &'static str,
    /// Digits behind the point.
    pub digits: usize,
}

/// Figures of several rounds, of nfdhcpd and the ceiling.
#[derive(Default)]
pub struct Table {
    samples: BTreeMap<Figure, [Vec<f64>; 2]>,
}

impl Table {
    /// Notes one.
    pub fn note(&mut self, figure: Figure, who: Who, value: f64) {
        self.samples.entry(figure).or_default()[who as usize].push(value);
    }

    /// Prints them under a title.
    pub fn print(&self, title: &str) {
        println!("\n{title}");
        println!(
            "  {:<34} {:>26} {:>26} {:>7}",
            "", "nfdhcpd", "ceiling", "ratio"
        );
        for (figure, [ceiling, ours]) in &self.samples {
            let ratio = match (median(ours), median(ceiling)) {
                (Some(ours), Some(ceiling)) => format!("{:.2}", ours / ceiling),
                _ => String::new(),
            };
            println!(
                "  {:<34} {:>26} {:>26} {:>7}",
                figure.name,
                text(ours, figure.digits),
                text(ceiling, figure.digits),
                ratio
            );
        }
    }
}

/// The middle of some values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (
        sorted.get(sorted.len().checked_sub(1)? / 2)?,
        sorted.get(sorted.len() / 2)?,
    );
    Some((low + high) / 2.0)
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
