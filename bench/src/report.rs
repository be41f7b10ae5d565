//! The figures and how they are shown.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// A bound that the project means to keep.
#[derive(Clone, Copy)]
pub enum Bound {
    /// The figure should be at least this.
    AtLeast(f64),
    /// The figure should be at most this.
    AtMost(f64),
    /// For information.
    None,
}

/// One figure.
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    bound: Bound,
    detail: String,
}

/// All figures of a run.
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// No figures yet.
    pub fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a figure; `detail` gives the absolute numbers behind a ratio.
    pub fn add(
        &mut self,
        name: &str,
        value: f64,
        unit: &'static str,
        bound: Bound,
        detail: String,
    ) {
        self.rows.push(Row { name: name.to_owned(), value, unit, bound, detail });
    }

    /// The figures as an aligned table.
    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut out = String::new();
        for row in &self.rows {
            let (bound, met) = match row.bound {
                Bound::AtLeast(b) => (format!(">= {b}"), Some(row.value >= b)),
                Bound::AtMost(b) => (format!("<= {b}"), Some(row.value <= b)),
                Bound::None => (String::new(), None),
            };
            let mark = match met {
                Some(true) => "ok",
                Some(false) => "NOT MET",
                None => "",
            };
            let _ = writeln!(
                out,
                "{:width$}  {:>10.2} {:<6} {:>8} {:<7}  {}",
                row.name, row.value, row.unit, bound, mark, row.detail
            );
        }
        out
    }

    /// The figures for programs.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let bound = match row.bound {
                Bound::AtLeast(b) => json!({ "at_least": b }),
                Bound::AtMost(b) => json!({ "at_most": b }),
                Bound::None => Value::Null,
            };
            json!({ "name": row.name, "value": row.value, "unit": row.unit, "bound": bound, "detail": row.detail })
        });
        Value::Array(rows.collect())
    }
}
