//! What many samples say.

/// A percentile is the median of those of so many slices of a run.
pub const SLICES: usize = 20;

/// The sample that this share of all did not exceed: in the median of twenty slices of the run. A
/// virtual machine that does not run for some milliseconds, once, would otherwise be all that the
/// figure tells of.
pub fn percentile<T: Copy + Ord + Into<f64>>(all: &[T], share: f64) -> f64 {
    let length = all.len().div_ceil(SLICES).max(1);
    let slices = all.chunks(length).map(|slice| {
        let mut sorted = slice.to_vec();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        sorted[at].into()
    });
    median(&slices.collect::<Vec<f64>>()).unwrap_or(f64::NAN)
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
