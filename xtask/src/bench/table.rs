//! Percentiles, side by side.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

/// One command of one scenario: the times of both contenders, sorted.
#[derive(Debug)]
pub(super) struct Row {
    scenario: &'static str,
    command: &'static str,
    ours: Vec<Duration>,
    go: Vec<Duration>,
}

impl Row {
    pub(super) fn new(
        scenario: &'static str,
        command: &'static str,
        mut ours: Vec<Duration>,
        mut go: Vec<Duration>,
    ) -> Self {
        ours.sort();
        go.sort();
        Self { scenario, command, ours, go }
    }

    /// Our median divided by theirs.
    fn ratio(&self) -> f64 {
        percentile(&self.ours, 50) / percentile(&self.go, 50)
    }
}

/// In milliseconds, by nearest rank; 0 for an empty list.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

/// A table for a terminal, times in milliseconds.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:24} {:8} {:>9} {:>9} {:>9} {:>9} {:>7}\n",
        "ms", "", "ours p50", "p90", "go p50", "p90", "ratio"
    );
    for row in rows {
        let [ours, go] = [&row.ours, &row.go].map(|t| (percentile(t, 50), percentile(t, 90)));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:24} {:8} {:9.2} {:9.2} {:9.2} {:9.2} {:7.2}",
            row.scenario,
            row.command,
            ours.0,
            ours.1,
            go.0,
            go.1,
            row.ratio()
        );
    }
    text
}

/// The same as JSON.
pub(super) fn json(rows: &[Row]) -> Value {
    let side = |times: &[Duration]| {
        let (p50, p90) = (percentile(times, 50), percentile(times, 90));
        json!({"p50": p50, "p90": p90, "rounds": times.len()})
    };
    let row = |row: &Row| {
        json!({
            "scenario": row.scenario, "command": row.command, "unit": "ms",
            "ours": side(&row.ours), "go": side(&row.go), "ratio": row.ratio(),
        })
    };
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        milliseconds.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "whole milliseconds are exact")]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(percentile(&times(1..=10), 50), 5.0);
        assert_eq!(percentile(&times(1..=10), 90), 9.0);
        assert_eq!(percentile(&times([7]), 90), 7.0);
        assert_eq!(percentile(&[], 50), 0.0);
    }

    #[test]
    fn a_row_sorts_its_times_and_compares_medians() {
        let row = Row::new("bridge", "ADD", times([3, 1, 2]), times([8, 9, 7]));
        assert!((row.ratio() - 0.25).abs() < 1e-9);
        assert!(text(&[row]).contains("2.00"));
    }
}
