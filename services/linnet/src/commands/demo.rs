//! `linnet demo`: the product's scenes, over real sockets, with running totals.

mod account;
mod live;
mod person;
mod social;
mod viewers;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::output::{Exit, Output};
use crate::target::Common;

/// The product's scenes, with running totals.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet demo live --viewers 50 --rate 60 --seconds 3")]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    scene: Scene,
}

#[derive(Subcommand, Debug)]
enum Scene {
    /// A live room: viewers, gifts, likes and text, and an account of every message that adds up.
    Live(live::LiveArgs),
    /// Friends: pairs and small groups, over every gateway, and an account of every message that adds up.
    Social(social::SocialArgs),
}

/// # Errors
/// [`crate::output::Failure`] when the server cannot be reached, refuses, or the account does not add up.
pub(crate) async fn run(args: DemoArgs, common: &Common, out: Output) -> Result<Exit> {
    match args.scene {
        Scene::Live(args) => live::run(args, common, out).await,
        Scene::Social(args) => social::run(args, common, out).await,
    }
}
