use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sleuth_input::{Preprocessor, TextLimits, TextTokenizer};
use sleuth_models::checkpoint::{Checkpoint, VersionFiles, VersionParts};
use sleuth_models::cpu::KvType;
use sleuth_models::paligemma::PaliGemmaConfig;

use super::folder::FolderParts;
use super::inputs::Inputs;
use super::lessons::Lessons;
use super::recipe::{Architecture, Recipe};
use super::tokenizer::scene_tokenizer;
use crate::data::DATA_FILE;
use crate::scenes::Split;

const TOKENIZER: &str = "tokenizer.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
/// What of the run's folder names the sources.
const SOURCES: &str = "sources.json";

/// What a run is made of beside its recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// A PaliGemma folder whose backbone, tokenizer and preprocessing are taken; without one the
    /// model is made from nothing.
    pub from: Option<PathBuf>,
    /// A data folder to learn from; without one, drawn scenes.
    pub data: Option<PathBuf>,
}

/// Sources, read.
pub(super) struct Opened {
    /// Weights to start from.
    pub(super) stored: Option<Checkpoint>,
    pub(super) school: School,
}

/// All of the sources but weights.
pub(super) struct School {
    pub(super) config: PaliGemmaConfig,
    pub(super) tokenizer_json: String,
    pub(super) preprocessor_json: String,
    pub(super) inputs: Inputs,
    pub(super) held_out: Lessons,
}

// === impl Sources ===

impl Sources {
    /// Reads what is named; `run` keeps the names, and other sources than its own are refused.
    pub(super) fn open(&self, run: &Path, recipe: &Recipe) -> Result<Opened> {
        let stored = self.from.as_deref().map(stored).transpose()?;
        self.check_names(run, stored.as_ref())?;
        let tokenizer = || kept(run, TOKENIZER, || scene_tokenizer(recipe.seed));
        Ok(Opened { stored, school: self.school(recipe, tokenizer)? })
    }

    /// The same without weights, for whoever wants to know what a run would take.
    pub(super) fn look(&self, recipe: &Recipe) -> Result<School> {
        self.school(recipe, || scene_tokenizer(recipe.seed))
    }

    /// `learned` gives the tokenizer of a model that is made from nothing.
    fn school(&self, recipe: &Recipe, learned: impl FnOnce() -> Result<String>) -> Result<School> {
        let parsed = |json: &str| TextTokenizer::from_json(json.as_bytes(), TextLimits::default());
        let (tokenizer_json, preprocessor_json, config) = match (&self.from, &recipe.architecture) {
            (Some(from), _) => {
                let config = PaliGemmaConfig::from_folder(from)?;
                (read(from, TOKENIZER)?, read(from, PREPROCESSOR)?, config)
            }
            (None, Some(shape)) => {
                let tokenizer = learned()?;
                let known = parsed(&tokenizer)?;
                let config = shape.config(known.vocab_size() as usize, known.image_id());
                (tokenizer, preprocessor_json(shape), config)
            }
            (None, None) => bail!(
                "the recipe has no `architecture`: name the model to start from with --from DIR"
            ),
        };
        let tokenizer = parsed(&tokenizer_json)?;
        let preprocessor = Preprocessor::from_json(preprocessor_json.as_bytes())?;
        let (lessons, held_out) = self.lessons(recipe.seed)?;
        for stage in &recipe.stages {
            lessons.check(stage)?;
        }
        let eos = tokenizer.eos_id();
        let inputs = Inputs { eos, tokenizer: Arc::new(tokenizer), preprocessor, lessons };
        Ok(School { config, tokenizer_json, preprocessor_json, inputs, held_out })
    }

    fn lessons(&self, seed: u64) -> Result<(Lessons, Lessons)> {
        let Some(data) = &self.data else {
            let drawn = |split| Lessons::Drawn { split, seed };
            return Ok((drawn(Split::Train), drawn(Split::Validation)));
        };
        let FolderParts { train, validation } = FolderParts::open(data, seed)?;
        Ok((Lessons::Folder(Arc::new(train)), Lessons::Folder(Arc::new(validation))))
    }

    /// A run goes on with the model and the data that it began with.
    fn check_names(&self, run: &Path, stored: Option<&Checkpoint>) -> Result<()> {
        let from = match (&self.from, stored) {
            (Some(folder), Some(stored)) => Some(version(folder, stored)?),
            _ => None,
        };
        let data = self.data.as_deref().map(|data| {
            let path = data.join(DATA_FILE);
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            anyhow::Ok(blake3::Hasher::new().update_reader(file)?.finalize().to_string())
        });
        let names = json!({"from": from, "data": data.transpose()?});
        let stored = kept(run, SOURCES, || Ok(format!("{names:#}\n")))?;
        let same = serde_json::from_str::<serde_json::Value>(&stored)? == names;
        ensure!(same, "{} holds a run of another --from or --data", run.display());
        Ok(())
    }
}

fn stored(folder: &Path) -> Result<Checkpoint> {
    Checkpoint::open(folder).with_context(|| format!("--from {}", folder.display()))
}

fn version(folder: &Path, stored: &Checkpoint) -> Result<String> {
    let weights = stored.files();
    let files = VersionFiles::read(&VersionParts { folder, weights, adapter: &[], tau: 1.0 })?;
    Ok(files.name(KvType::F32))
}

fn read(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    fs::read_to_string(&path).with_context(|| format!("--from: read {}", path.display()))
}

/// A file of the run's folder, made the first time.
fn kept(run: &Path, name: &str, make: impl FnOnce() -> Result<String>) -> Result<String> {
    let path = run.join(name);
    if path.exists() {
        return fs::read_to_string(&path).with_context(|| path.display().to_string());
    }
    let made = make()?;
    fs::write(&path, &made).with_context(|| path.display().to_string())?;
    Ok(made)
}

/// `preprocessor_config.json` for an image size.
fn preprocessor_json(shape: &Architecture) -> String {
    let side = shape.image_size;
    let value = json!({
        "do_convert_rgb": null, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor",
        "image_seq_length": (side / shape.patch_size).pow(2),
        "image_std": [0.5, 0.5, 0.5], "processor_class": "PaliGemmaProcessor", "resample": 3,
        "rescale_factor": 1.0 / 255.0, "size": {"height": side, "width": side},
    });
    format!("{value:#}\n")
}
