//! Completions and the manual page, made from the same declarations as `--help`.

use std::io::Write as _;

use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::output::Exit;

/// Completions for a shell, on stdout.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  linnet completions bash")]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// The manual page, on stdout.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  linnet man > linnet.1")]
pub(crate) struct ManArgs {}

/// # Errors
/// Never; a closed pipe is how a pager ends.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "linnet", &mut script);
    let _ = std::io::stdout().write_all(&script);
    Ok(Exit::Done)
}

/// One page: the command line as a whole, then each command.
///
/// # Errors
/// When a page cannot be made.
pub(crate) fn man(_: &ManArgs) -> Result<Exit> {
    let mut root = crate::Cli::command();
    root.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(root.clone()).render(&mut page)?;
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        section(command, "linnet", &mut page)?;
    }
    let _ = std::io::stdout().write_all(&page);
    Ok(Exit::Done)
}

fn section(command: &clap::Command, parent: &str, page: &mut Vec<u8>) -> Result<()> {
    let name = format!("{parent} {}", command.get_name());
    let man = clap_mangen::Man::new(command.clone());
    writeln!(page, ".SH {}", name.to_uppercase())?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    man.render_extra_section(page)?;
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        section(inner, &name, page)?;
    }
    Ok(())
}
