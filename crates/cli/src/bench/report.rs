//! A result with all that it depends on, for people, for programs and for the record.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::disk::Disk;
use super::machine::Machine;
use super::usage::Usage;
use crate::failure::Failure;
use crate::terminal::{Align, Out, Style, Table, bytes, count};

/// Where dated results are kept.
const RESULTS: &str = "benchmarks/results";

/// The result of one benchmark.
pub(super) struct Report {
    name: String,
    machine: Machine,
    disk: Disk,
    sync: String,
    figures: Vec<Figure>,
    tables: Vec<Rows>,
    goals: Vec<Goal>,
    faults: Vec<String>,
    notes: Vec<String>,
}

/// One number.
#[derive(Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
}

/// Several numbers for each of several things.
struct Rows {
    title: &'static str,
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Value>>,
}

/// What was to be reached.
#[derive(Serialize)]
struct Goal {
    what: String,
    met: bool,
}

impl Report {
    /// An empty report.
    pub(super) fn new(name: &str, machine: Machine, disk: Disk, sync: &str) -> Self {
        Self {
            name: name.to_owned(),
            machine,
            disk,
            sync: sync.to_owned(),
            figures: Vec::new(),
            tables: Vec::new(),
            goals: Vec::new(),
            faults: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) fn figure(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name, value, unit });
    }

    /// What it cost.
    pub(super) fn usage(&mut self, wall_s: f64, cpu_s: f64, rss_peak_bytes: u64) {
        self.figure("wall", wall_s, "s");
        self.figure("CPU, user and system", cpu_s, "s");
        self.figure("peak RSS", rss_peak_bytes as f64, "bytes");
    }

    pub(super) fn table(&mut self, title: &'static str, columns: &[(&'static str, Align)], rows: Vec<Vec<Value>>) {
        self.tables.push(Rows { title, columns: columns.to_vec(), rows });
    }

    /// Where the CPU time went, by the names of threads.
    pub(super) fn threads(&mut self, usage: &Usage, events: u64) {
        let mut threads: Vec<(&String, &f64)> = usage.threads.iter().filter(|(_, s)| **s >= 0.005).collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        let rows = threads.into_iter().map(|(name, cpu_s)| vec![json!(name), json!(cpu_s), per_event(*cpu_s, events)]);
        let columns = [("THREADS", Align::Left), ("CPU s", Align::Right), ("us/EVENT", Align::Right)];
        self.table("CPU by thread", &columns, rows.collect());
    }

    pub(super) fn goal(&mut self, what: String, met: bool) {
        self.goals.push(Goal { what, met });
    }

    /// Something is wrong with what was computed, whatever its speed.
    pub(super) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }

    /// Whether the figures are of something right.
    pub(super) fn sound(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        if out.json {
            return out.value(&self.json());
        }
        for line in self.lines(out.style) {
            out.line(&line)?;
        }
        Ok(())
    }

    /// Writes the report to its dated file.
    pub(super) fn save(&self) -> Result<PathBuf, Failure> {
        let path = Path::new(RESULTS).join(format!("{}-{}.md", chrono::Utc::now().format("%Y-%m-%d"), self.name));
        std::fs::create_dir_all(RESULTS).with_context(|| format!("making {RESULTS}"))?;
        let lines = self.lines(Style::plain()).join("\n");
        let text = format!("# `millstream bench`: {}\n\n```\n{lines}\n```\n", self.name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|f| (f.name.to_owned(), json!({"value": f.value, "unit": f.unit}))).collect();
        let tables: Map<String, Value> = self.tables.iter().map(|t| (t.title.to_owned(), t.json())).collect();
        json!({
            "benchmark": self.name, "machine": self.machine, "disk": self.disk, "sync": self.sync, "figures": figures,
            "tables": tables, "goals": self.goals, "faults": self.faults, "notes": self.notes,
        })
    }

    fn lines(&self, style: Style) -> Vec<String> {
        let mut head = vec![("benchmark", style.bold(&self.name))];
        head.extend(self.machine.lines());
        head.push(("disk", self.disk.line()));
        head.push(("sync", self.sync.clone()));
        let mut lines: Vec<String> =
            head.into_iter().map(|(name, value)| format!("{}{value}", style.dim(&format!("{name:<12}")))).collect();
        lines.push(String::new());
        let wide = self.figures.iter().map(|f| f.name.len()).max().unwrap_or(0) + 2;
        lines.extend(self.figures.iter().map(|f| format!("{:<wide$}{}", f.name, f.text())));
        for table in self.tables.iter().filter(|t| !t.rows.is_empty()) {
            lines.push(String::new());
            lines.extend(table.lines(style));
        }
        lines.push(String::new());
        for goal in &self.goals {
            let mark = if goal.met { style.good("met     ") } else { style.warn("not met ") };
            lines.push(format!("{mark} {}", goal.what));
        }
        lines.extend(self.faults.iter().map(|fault| format!("{} {fault}", style.bad("wrong   "))));
        lines.extend(self.notes.iter().map(|note| format!("note     {note}")));
        lines
    }
}

impl Figure {
    fn text(&self) -> String {
        match self.unit {
            "bytes" => bytes(self.value.max(0.0) as u64),
            unit => format!("{} {unit}", number(self.value)).trim_end().to_owned(),
        }
    }
}

impl Rows {
    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(row).map(|((name, _), cell)| ((*name).to_lowercase(), cell.clone()));
            Value::Object(cells.collect())
        });
        rows.collect()
    }

    fn lines(&self, style: Style) -> Vec<String> {
        let mut table = Table::new(&self.columns);
        for row in &self.rows {
            table.row(row.iter().map(cell).collect());
        }
        table.lines(style)
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Number(n) => n.as_u64().map_or_else(|| number(n.as_f64().unwrap_or(0.0)), count),
        other => other.to_string(),
    }
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{}{}", if value < 0.0 { "-" } else { "" }, count(v.round() as u64)),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Seconds for all as microseconds for each.
pub(super) fn per_event(seconds: f64, events: u64) -> Value {
    if events == 0 { Value::Null } else { json!(seconds * 1e6 / events as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_mean_something() {
        assert_eq!([number(0.123), number(12.34), number(123.4), number(-1234.5)], ["0.12", "12.3", "123", "-1,235"]);
        assert_eq!([cell(&json!(1234)), cell(&json!("a")), cell(&Value::Null)], ["1,234", "a", ""]);
    }
}
