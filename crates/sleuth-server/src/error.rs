use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificates or credentials cannot be used.
    #[error("cannot be secured")]
    Security(#[from] SecurityError),
    /// The model did not load.
    #[error("the model did not load")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The schema for reflection does not decode.
    #[error("the schema for reflection does not decode")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("the transport failed")]
    Transport(#[source] tonic::transport::Error),
}

/// Why certificates or credentials cannot be used. Names files and places in them, never what
/// they hold.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no PEM, or holds nothing of what it should.
    #[error("{} holds no {what} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key do not fit each other, or are not supported.
    #[error("{} and {} cannot be used", certificate.display(), key.display())]
    Certificate {
        /// The chain's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authorities for client certificates cannot be used.
    #[error("{} cannot be used for client certificates: {why}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A credentials file says what it may not.
    #[error("{}: {}", path.display(), faults.join("; "))]
    Credentials {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        faults: Vec<String>,
    },
}
