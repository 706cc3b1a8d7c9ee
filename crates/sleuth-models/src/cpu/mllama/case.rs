//! The golden files of `tests/golden/mllama`, for the tests beside this.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sleuth_core::Pixels;

use super::MllamaCpu;
use crate::cpu::{Behind, Done, ImageKv, KvType, NewPrefix, PrefixKv, Suffix, Work, Workspace};
use crate::mllama::MllamaFolder;
use crate::{BeforeImage, LoadOptions};

pub(super) struct Case {
    pub(super) name: String,
    pub(super) model: MllamaCpu,
    pub(super) pixels: Pixels,
    pub(super) prompt: Vec<u32>,
    pub(super) responses: Vec<Vec<u32>>,
    golden: HashMap<String, Tensor>,
}

pub(super) fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/mllama");
    let entries = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

pub(super) fn space(threads: usize) -> Workspace {
    Workspace::new(threads).unwrap()
}

pub(super) fn whole<'a>(prefix: Behind<'a>, tokens: &'a [u32]) -> Suffix<'a> {
    Suffix::Whole { prefix, tokens }
}

pub(super) fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// The largest difference.
pub(super) fn off(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter()
        .zip(want)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}

// === impl Case ===

impl Case {
    pub(super) fn all(kv: KvType) -> Vec<Self> {
        folders().iter().map(|folder| Self::open(folder, kv, 1.0, BeforeImage::Attends)).collect()
    }

    pub(super) fn open(folder: &Path, kv: KvType, tau: f64, before: BeforeImage) -> Self {
        let file = folder.join("golden.safetensors");
        let golden: HashMap<String, Tensor> =
            candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let ids = |name: &str| golden[name].to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
        let count = (0..64).take_while(|r| golden.contains_key(&format!("logits.{r}"))).count();
        let (_, height, width) = golden["canvas"].dims3().unwrap();
        let values = golden["canvas"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let adapter = Some(folder.join("adapter")).filter(|p| p.exists());
        let mut opened = MllamaFolder::open(folder, &LoadOptions { adapter, tau }).unwrap();
        opened.settings.before_image = before;
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            model: opened.load_cpu(kv).unwrap(),
            pixels: Pixels::try_new(height as u32, width as u32, values.into()).unwrap(),
            prompt: ids("prompt_ids"),
            responses: (0..count).map(|r| ids(&format!("response_ids.{r}"))).collect(),
            golden,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.golden.contains_key(name)
    }

    pub(super) fn values(&self, name: &str) -> Vec<f32> {
        let tensor = self.golden.get(name).unwrap_or_else(|| panic!("{}: no `{name}`", self.name));
        tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    pub(super) fn logits(&self, name: &str) -> Vec<Vec<f32>> {
        (0..self.responses.len()).map(|r| self.values(&format!("{name}.{r}"))).collect()
    }

    pub(super) fn image(&self, space: &mut Workspace) -> ImageKv {
        self.model.see(space, &[&self.pixels]).unwrap().remove(0)
    }

    /// All responses in one pass.
    pub(super) fn score(&self, space: &mut Workspace) -> Vec<Vec<f32>> {
        let image = self.image(space);
        let prefixes = vec![NewPrefix { features: &image, prompt: &self.prompt }];
        let suffixes = self.responses.iter().map(|r| whole(Behind::New(0), r)).collect();
        self.model.score(space, Work { prefixes, suffixes }).unwrap().logits
    }

    /// The states after the final norm of the tokens behind the first `prefix` of the first
    /// response's sequence.
    pub(super) fn states(&self, space: &mut Workspace, prefix: usize) -> Vec<f32> {
        let image = self.image(space);
        let ids = [self.prompt.as_slice(), &self.responses[0]].concat();
        let prefixes = vec![NewPrefix { features: &image, prompt: &ids[..prefix] }];
        let suffixes = vec![whole(Behind::New(0), &ids[prefix..])];
        let Done { mut logits, .. } =
            self.model.states(space, Work { prefixes, suffixes }).unwrap();
        logits.remove(0)
    }

    pub(super) fn prefix(&self, space: &mut Workspace) -> Arc<PrefixKv> {
        let image = self.image(space);
        let prefixes = vec![NewPrefix { features: &image, prompt: &self.prompt }];
        let work = Work { prefixes, suffixes: Vec::new() };
        self.model.score(space, work).unwrap().prefixes.remove(0)
    }
}
