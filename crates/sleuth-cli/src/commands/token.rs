use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sleuth_server::{NewToken, Role, is_caller_name};

use crate::arguments::{TokenAction, TokenArguments, TokenFormat};
use crate::output;

pub(super) fn run(arguments: &TokenArguments) -> Result<ExitCode> {
    let TokenAction::New { name, tenant, roles, format } = &arguments.action;
    let name = name.as_ref().unwrap_or(tenant);
    for (flag, text) in [("--name", name), ("--tenant", tenant)] {
        ensure!(is_caller_name(text), "{flag}: 1 to 256 printable characters without spaces");
    }
    let new = NewToken::generate().context("the system gives no random bytes")?;
    let roles: Vec<_> = roles.iter().copied().map(Role::name).collect();
    let mut out = io::stdout().lock();
    match format {
        TokenFormat::Json => {
            let object = json!({
                "token": new.token.reveal(),
                "name": name,
                "tenant": tenant,
                "roles": roles,
                "blake3": new.blake3,
            });
            output::json_line(&mut out, &object)?;
        }
        TokenFormat::Toml => {
            // JSON's strings and lists are TOML's too.
            writeln!(
                out,
                "[[token]]\nname = {}\ntenant = {}\nroles = {}\nblake3 = \"{}\"",
                json!(name),
                json!(tenant),
                json!(roles),
                new.blake3
            )?;
            output::note(new.token.reveal());
        }
    }
    Ok(ExitCode::SUCCESS)
}
