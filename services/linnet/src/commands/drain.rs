//! `linnet drain`: one process leaves as planned.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::admin::Admin;
use crate::output::{Exit, Output};
use crate::target::Common;

/// Make the process at --server leave: off the rings, its clients sent elsewhere, accepted work finished; then it ends.
///
/// Every process has an HTTP port of its own (`server.listen`) for this. SIGTERM does the same.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet drain --help")]
pub(crate) struct DrainArgs {}

/// # Errors
/// [`crate::output::Failure`] when the process cannot be reached or the token is wrong.
pub(crate) async fn run(_: DrainArgs, common: &Common, out: Output) -> Result<Exit> {
    let left: Value = Admin::new(&common.target()?)?.post(&["drain"], &json!({})).await?;
    out.result(&left, format!("{} leaves", left["node"].as_str().unwrap_or("the process")));
    Ok(Exit::Done)
}
