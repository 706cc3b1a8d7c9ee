use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::keys::{self, Key, Kind};

/// What the command line says of the settings: every key is a flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub(super) values: Vec<(&'static Key, String)>,
}

// === impl Flags ===

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        keys::all().fold(command, |command, key| command.arg(argument(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = keys::all().filter_map(|key| {
            let said = matches.value_source(key.name)? == ValueSource::CommandLine;
            let text: &String = matches.get_one(key.name)?;
            said.then(|| (key, text.clone()))
        });
        Ok(Self { values: values.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Values are taken as text: they are checked together with those from elsewhere.
fn argument(key: &'static Key) -> Arg {
    let default = key.default.map_or_else(String::new, |text| format!(" [default: {text}]"));
    let argument = Arg::new(key.name).long(key.flag).help_heading(heading(key.section()));
    match key.kind {
        Kind::Switch => argument
            .help(key.about)
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Text | Kind::Number => argument
            .help(format!("{}: {}{default}", key.about, key.allowed))
            .value_name(if key.kind == Kind::Number { "N" } else { "VALUE" })
            .allow_negative_numbers(true),
    }
}

fn heading(section: &'static str) -> &'static str {
    match section {
        "server" => "Server",
        "tls" => "TLS",
        "auth" => "Callers",
        "admin" => "Admin port",
        "metrics" => "Metrics",
        "traces" => "Traces",
        "corrector" => "Corrector",
        "log" => "Logs",
        "model" => "Model",
        "engine" => "Engine",
        "admission" => "Admission",
        "limits" => "Limits",
        other => other,
    }
}
