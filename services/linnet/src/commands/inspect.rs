//! `linnet inspect`: stored rows, readable.

use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::Admin;
use super::text;
use crate::output::{Exit, Failure, Output};
use crate::target::Common;

/// Stored rows, readable. Without a table, lists the tables.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet inspect\n  linnet inspect app 1600000001")]
pub(crate) struct InspectArgs {
    /// Table; without it, all are listed.
    table: Option<String>,
    /// Parts of the partition key, separated by commas; fewer parts show every partition that begins so.
    #[arg(value_name = "KEY", default_value = "")]
    partition: String,
    /// Most rows.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

#[derive(Deserialize)]
struct Found {
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Partition {
    key: Value,
    #[serde(default)]
    guard: Value,
    #[serde(default)]
    rows: Vec<Value>,
}

/// # Errors
/// [`Failure`] when the server cannot be reached or there is no such table.
pub(crate) async fn run(args: InspectArgs, common: &Common, out: Output) -> Result<Exit> {
    let admin = Admin::new(&common.target()?)?;
    let Some(table) = args.table else {
        let tables: Value = admin.get(&["inspect", "tables"], &[]).await?;
        let tables: Vec<&str> = tables["tables"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        tables.iter().for_each(|table| out.result(&json!({ "table": table }), table));
        return Ok(Exit::Done);
    };
    let query = [("key", args.partition.clone()), ("limit", args.limit.to_string())];
    let found: Found = admin.get(&["inspect", &table], &query).await?;
    if found.partitions.is_empty() {
        let todo = "leave the end of the key out to see what is there; `linnet inspect` lists the tables";
        let why = match args.partition.as_str() {
            "" => "the table is empty".to_owned(),
            key => format!("no partition begins with {key}"),
        };
        return Err(Failure::refused(format!("{table} has nothing to show"), why, todo).into());
    }
    let mut rows = 0;
    for partition in &found.partitions {
        rows += partition.rows.len();
        if out.json {
            out.result(
                &json!({ "table": table, "key": partition.key, "guard": partition.guard, "rows": partition.rows }),
                "",
            );
            continue;
        }
        out.text(format!("{table} {}", plain(&partition.key)));
        if !partition.guard.is_null() {
            out.text(format!("  guard  {}", plain(&partition.guard)));
        }
        partition.rows.iter().for_each(|row| out.text(format!("  {}", plain(row))));
    }
    out.note(format!(
        "{} in {}",
        text::count(rows as u64, "row"),
        text::count(found.partitions.len() as u64, "partition")
    ));
    if rows >= args.limit {
        out.note("there may be more: --limit N");
    }
    Ok(Exit::Done)
}

/// Text as it is, the rest as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
