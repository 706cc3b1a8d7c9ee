//! How the command line knows servers, and is known by them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use sleuth_client::{ClientCertificate, Security};
use sleuth_core::Secret;

use crate::arguments::SecurityArguments;
use crate::environment;

/// Reads the files that the arguments name.
pub(crate) fn security(arguments: &SecurityArguments) -> Result<Security> {
    let SecurityArguments { ca, server_name, client_certificate, client_key, token_file } =
        arguments;
    let certificate = match (client_certificate, client_key) {
        (Some(chain), Some(key)) => {
            Some(ClientCertificate { chain: read(chain)?, key: Secret::new(read(key)?) })
        }
        _ => None,
    };
    let token = match token_file {
        Some(path) => Some(read(path)?),
        None => environment::token(),
    };
    Ok(Security {
        authorities: ca.as_deref().map(read).transpose()?,
        server_name: server_name.clone(),
        certificate,
        token: token.map(|text| Secret::new(text.trim())),
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
