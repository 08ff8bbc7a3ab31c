//! `state show`: what a service keeps, in named columns.

use std::borrow::Cow;
use std::path::PathBuf;

use millstream_node::api::{StateAnswer, StateLine, StateQuery, paths};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::state_path;
use crate::failure::Failure;
use crate::target::{Target, TargetArgs};
use crate::terminal::{Align, Out, Table, bytes};

/// How many rows are shown unless more are asked for.
const SHOWN: u64 = 100;
/// The longest value of a table.
const CELL_CHARS_MAX: usize = 60;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The service
    service: String,
    /// Only rows with these key columns: COLUMN=VALUE, several times, or a JSON object
    #[arg(long, value_name = "COLUMN=VALUE", num_args = 1..)]
    key: Vec<String>,
    /// Only this partition
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Show at most so many rows
    #[arg(short = 'n', long, value_name = "N", default_value_t = SHOWN)]
    limit: u64,
    /// The pipeline: a directory with pipeline.yaml, or a file
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    pipeline: PathBuf,
}

pub(super) async fn run(args: &Args, address: Option<&str>, out: &mut Out) -> Result<(), Failure> {
    let target = TargetArgs { pipeline: args.pipeline.clone(), address: address.map(str::to_owned) };
    let query = StateQuery { key: key(&args.key)?, partition: args.partition, limit: Some(args.limit) };
    let answer: StateAnswer = match target.find().await? {
        Target::Running(client) => {
            client.get(&state_path(&paths::fill(paths::STATE_ROWS, &args.service), &query)?).await?
        }
        Target::Stopped(loaded) => crate::stopped::state(&loaded, &args.service, &query).await?,
    };
    if out.json {
        return out.value(&answer);
    }
    print(&answer, out)
}

/// The key as a JSON object.
fn key(given: &[String]) -> Result<Option<String>, Failure> {
    let mut object = serde_json::Map::new();
    for text in given {
        if text.trim_start().starts_with('{') {
            if given.len() > 1 {
                return Err(Failure::Usage("--key: give one JSON object, or COLUMN=VALUE several times".into()));
            }
            return Ok(Some(text.clone()));
        }
        let Some((column, value)) = text.split_once('=') else {
            let help = format!("--key {text}: write COLUMN=VALUE, or a JSON object such as '{{\"sku\": \"a\"}}'");
            return Err(Failure::Usage(help));
        };
        object.insert(column.trim().to_owned(), Value::from(value));
    }
    Ok((!object.is_empty()).then(|| Value::Object(object).to_string()))
}

fn print(answer: &StateAnswer, out: &mut Out) -> Result<(), Failure> {
    if answer.rows.is_empty() {
        eprintln!("`{}` keeps nothing of that kind ({})", answer.service, answer.kept_in);
        return Ok(());
    }
    let several = answer.steps.len() > 1;
    for (step, line) in answer.steps.iter().enumerate() {
        let rows = || answer.rows.iter().filter(|row| row.step == step);
        if several && rows().next().is_some() {
            out.line(&out.style.bold(&format!("{}. {line}", step + 1)))?;
        }
        let mut kinds: Vec<&str> = Vec::new();
        for row in rows() {
            if !kinds.contains(&row.what.as_str()) {
                kinds.push(&row.what);
            }
        }
        for kind in kinds {
            table(rows().filter(|row| row.what == kind), kind, out)?;
        }
    }
    if answer.more {
        eprintln!("there is more: ask for a key with --key, for a partition, or for more rows with --limit");
    }
    Ok(())
}

fn table<'a>(rows: impl Iterator<Item = &'a StateLine> + Clone, kind: &str, out: &mut Out) -> Result<(), Failure> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.clone().flat_map(|row| row.key.0.iter().chain(&row.value.0)) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let notes = rows.clone().any(|row| row.note.is_some());
    let heading = |name: &str, align| (Cow::Owned(name.to_owned()), align);
    let mut columns = vec![heading("WHAT", Align::Left), heading("PART", Align::Right)];
    columns.extend(names.iter().map(|name| heading(name, Align::Left)));
    columns.push(heading("SIZE", Align::Right));
    if notes {
        columns.push(heading("NOTE", Align::Left));
    }
    let mut table = Table::named(columns);
    for row in rows {
        let mut cells = vec![kind.to_owned(), row.partition.to_string()];
        let own: Vec<_> = row.key.0.iter().chain(&row.value.0).collect();
        let value = |name: &&str| own.iter().find(|(own, _)| own == *name).map_or(String::new(), |(_, v)| plain(v));
        cells.extend(names.iter().map(value));
        cells.push(bytes(row.bytes));
        if notes {
            cells.push(row.note.clone().unwrap_or_default());
        }
        table.row(cells);
    }
    out.table(&table)
}

/// A value without the quotes of JSON, cut where it is long.
fn plain(json: &RawValue) -> String {
    let text = match serde_json::from_str(json.get()) {
        Ok(Value::String(text)) => text,
        _ => json.get().to_owned(),
    };
    match text.chars().count() > CELL_CHARS_MAX {
        true => text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect(),
        false => text,
    }
}
