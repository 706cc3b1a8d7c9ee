use std::path::PathBuf;

/// Why a model folder or adapter could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The folder holds no weights.
    #[error("{}: holds neither model.safetensors nor model.safetensors.index.json", folder.display())]
    NoWeights {
        /// The model folder.
        folder: PathBuf,
    },
    /// The index names a file that is not there.
    #[error("{}: this shard, named by {index}, is missing", path.display())]
    MissingShard {
        /// The absent file.
        path: PathBuf,
        /// The index file's name.
        index: String,
    },
    /// The config asks for a tensor that no file holds.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Canonical name.
        name: String,
    },
    /// A tensor has another shape than the config says.
    #[error("tensor `{name}` has shape {found:?} where the config asks for {expected:?}")]
    Shape {
        /// Canonical name.
        name: String,
        /// From the config.
        expected: Vec<usize>,
        /// From the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that is not read.
    #[error("tensor `{name}` is stored as {found}; F32, F16 and BF16 are supported")]
    Type {
        /// Canonical name.
        name: String,
        /// From the file.
        found: String,
    },
    /// The system gave no threads.
    #[error("the model's threads could not be started")]
    Threads(#[source] std::io::Error),
    /// The system gave no memory for the weights.
    #[error("no memory for the weights")]
    Memory(#[source] std::io::Error),
    /// A weight is NaN or infinite.
    #[error("tensor `{name}` holds a value that is not a finite number")]
    NotFinite {
        /// Canonical name.
        name: String,
    },
    /// What was to be written is there already.
    #[error("{}: is there already; name another folder, or remove it first", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A pass gave less than was asked of it.
    #[error("the model gave less than it was asked for")]
    Incomplete,
    /// The folder has no reward head, nor does the adapter.
    #[error(
        "no reward head: neither reward_head.safetensors nor an adapter with a saved `score` module"
    )]
    NoHead,
    /// The adapter uses something that is not offered.
    #[error("{}: {what} is not supported", path.display())]
    Unsupported {
        /// The adapter's file.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// The tensor library refused.
    #[error("the tensor library refused")]
    Tensor(#[from] candle_core::Error),
}

impl LoadError {
    pub(crate) fn malformed(path: impl Into<PathBuf>, problem: impl std::fmt::Display) -> Self {
        Self::Malformed { path: path.into(), problem: problem.to_string() }
    }
}
