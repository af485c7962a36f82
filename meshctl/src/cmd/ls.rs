//! `meshctl ls`: the sandboxes of this machine.
//!
//! Never here: asking them anything. Called by `main`.

use std::process::ExitCode;

use serde_json::json;

use crate::render;
use crate::sandbox::place::Base;

/// Flags of `ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    base: Base,
    /// Output: table or json.
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

/// Runs.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut rows = Vec::new();
    for place in args.base.all()? {
        let (state, record) = place.state()?;
        rows.push((place, state.text(), record));
    }
    if args.output == "json" {
        let items: Vec<_> = rows
            .iter()
            .map(|(place, state, record)| {
                json!({"name": place.name, "pid": record.as_ref().map(|record| record.pid), "state": state,
                    "folder": place.folder, "port": record.as_ref().map(|record| record.port)})
            })
            .collect();
        render::print(&format!("{}\n", serde_json::to_string_pretty(&items)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        eprintln!("no sandboxes; start one with `meshctl up`");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(place, state, record)| {
            let pid = record.map_or_else(|| "-".to_owned(), |record| record.pid.to_string());
            vec![place.name, state.to_owned(), pid]
        })
        .collect();
    render::print(&render::table(&["NAME", "STATE", "PID"], &rows))?;
    Ok(ExitCode::SUCCESS)
}
