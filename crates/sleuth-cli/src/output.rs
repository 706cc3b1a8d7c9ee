//! Printing for people and for scripts.

mod difference;
mod pretty;
mod table;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

pub(crate) use difference::difference;
pub(crate) use pretty::pretty;
pub(crate) use table::Table;

/// Prints an error and its causes to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    let (red, reset) =
        if io::stderr().is_terminal() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let mut text = format!("{red}error{reset}: {error}\n");
    for cause in error.chain().skip(1) {
        let _ = writeln!(text, "  caused by: {cause}");
    }
    write_to_stderr(&text);
}

/// Prints a note to standard error.
pub(crate) fn note(text: &str) {
    write_to_stderr(&format!("{text}\n"));
}

/// Prints one JSON value on a line of its own.
pub(crate) fn json_line(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// A bar on standard error where that is a terminal, else nothing.
pub(crate) fn progress(length: Option<u64>, what: &'static str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let template = if length.is_some() {
        "{msg} {wide_bar} {pos}/{len} {per_sec} {eta}"
    } else {
        "{msg} {spinner} {pos} {per_sec}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// A closed standard error is no reason to fail.
fn write_to_stderr(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}
