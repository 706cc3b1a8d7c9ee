use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::keys::{self, Key, Kind};

/// What the command line says of the settings: every key is a flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub(super) values: Vec<(&'static Key, String)>,
}

/// Those of `sleuth serve`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServeFlags(pub(crate) Flags);

/// Those of `sleuth route`.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteFlags(pub(crate) Flags);

// === impl Flags ===

impl Flags {
    fn augment(command: Command, of: fn(&Key) -> bool) -> Command {
        keys::all().filter(|key| of(key)).fold(command, |command, key| command.arg(argument(key)))
    }

    fn read(matches: &ArgMatches, of: fn(&Key) -> bool) -> Self {
        let values = keys::all().filter(|key| of(key)).filter_map(|key| {
            let said = matches.value_source(key.name)? == ValueSource::CommandLine;
            let text: &String = matches.get_one(key.name)?;
            said.then(|| (key, text.clone()))
        });
        Self { values: values.collect() }
    }
}

/// Flags of the keys that a command goes by.
macro_rules! flags {
    ($type:ty, $of:expr, $wrap:expr) => {
        impl Args for $type {
            fn augment_args(command: Command) -> Command {
                Flags::augment(command, $of)
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $type {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok($wrap(Flags::read(matches, $of)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

flags!(Flags, |_| true, std::convert::identity);
flags!(ServeFlags, Key::is_of_serve, ServeFlags);
flags!(RouteFlags, Key::is_of_route, RouteFlags);

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
        "http" => "HTTP facades",
        "metrics" => "Metrics",
        "traces" => "Traces",
        "corrector" => "Corrector",
        "log" => "Logs",
        "model" => "Model",
        "engine" => "Engine",
        "admission" => "Admission",
        "limits" => "Limits",
        "router" => "Replicas",
        other => other,
    }
}
