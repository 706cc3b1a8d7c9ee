//! On candle's CPU device: the same code as on a GPU, but for the products.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::backbone::{Backbone, Behind, Continued, Held, PassShape, Prefilled, Suffix};
use crate::{LoadOptions, ModelFolder};

/// Absolute, of logits of order 5, as for every other path.
const TOLERANCE: f32 = 2e-4;

const EXACT: DeviceSettings =
    DeviceSettings { weights: WeightType::F32, kv: KvType::F32, score_bytes: 256 << 20 };

struct Case {
    name: String,
    model: DeviceModel,
    pixels: Pixels,
    prompt: Vec<u32>,
    responses: Vec<Vec<u32>>,
    logits: Vec<Vec<f32>>,
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/paligemma");
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn case(folder: &Path, settings: DeviceSettings) -> Case {
    let adapter = Some(folder.join("adapter")).filter(|path| path.exists());
    let opened = ModelFolder::open(folder, &LoadOptions { adapter, tau: 1.0 }).unwrap();
    let model = DeviceModel::load(&opened, &Device::Cpu, settings, Arc::new(ThroughHost)).unwrap();
    let golden = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu);
    let golden = golden.unwrap();
    let side = opened.config.vision_config.image_size as u32;
    let pixels: Vec<f32> = golden["pixel_values"].flatten_all().unwrap().to_vec1().unwrap();
    let ids =
        |name: &str| -> Vec<u32> { golden[name].to_dtype(DType::U32).unwrap().to_vec1().unwrap() };
    let count = (0..64).take_while(|r| golden.contains_key(&format!("response_ids.{r}"))).count();
    Case {
        name: folder.display().to_string(),
        model,
        pixels: Pixels::try_new(side, side, pixels.into()).unwrap(),
        prompt: ids("prompt_ids"),
        responses: (0..count).map(|r| ids(&format!("response_ids.{r}"))).collect(),
        logits: (0..count)
            .map(|r| golden[&format!("logits.{r}")].flatten_all().unwrap().to_vec1().unwrap())
            .collect(),
    }
}

fn causal() -> Vec<Case> {
    let cases = folders().into_iter().map(|folder| case(&folder, EXACT));
    let cases: Vec<Case> =
        cases.filter(|case| case.model.attention == SuffixAttention::Causal).collect();
    assert!(cases.len() >= 5, "{} cases", cases.len());
    cases
}

impl Case {
    fn features(&self) -> DeviceFeatures {
        self.model.see(&mut DeviceSpace::default(), &[&self.pixels]).unwrap().remove(0)
    }

    fn score(
        &self,
        work: Work<'_, DeviceFeatures, DevicePrefix, DeviceSuffix>,
    ) -> Done<DevicePrefix, DeviceSuffix> {
        self.model.score(&mut DeviceSpace::default(), work).unwrap()
    }

    fn prefix(&self) -> Arc<DevicePrefix> {
        let features = self.features();
        let prefixes = vec![NewPrefix { features: &features, prompt: &self.prompt }];
        self.score(Work { prefixes, suffixes: Vec::new() }).prefixes.remove(0)
    }

    /// All responses in one pass.
    fn all(&self) -> Vec<Vec<f32>> {
        let features = self.features();
        let prefix = NewPrefix { features: &features, prompt: &self.prompt };
        if self.model.attention == SuffixAttention::Full {
            let sequences: Vec<_> = self.responses.iter().map(|r| (prefix, r.as_slice())).collect();
            return self.model.score_full(&mut DeviceSpace::default(), &sequences).unwrap();
        }
        let suffixes = self.responses.iter().map(|r| whole(Behind::New(0), r)).collect();
        self.score(Work { prefixes: vec![prefix], suffixes }).logits
    }
}

fn whole<'a>(
    prefix: Behind<'a, DevicePrefix>,
    tokens: &'a [u32],
) -> Suffix<'a, DevicePrefix, DeviceSuffix> {
    Suffix::Whole { prefix, tokens }
}

fn worst(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    let lengths = |logits: &[Vec<f32>]| logits.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(got), lengths(want));
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    let off = pairs.map(|(a, b)| (a - b).abs());
    off.fold(0.0, |worst, off| if off > worst || off.is_nan() { off } else { worst })
}

fn assert_close(what: &str, got: &[Vec<f32>], want: &[Vec<f32>]) {
    let off = worst(got, want);
    assert!(off <= TOLERANCE, "{what} is off by {off}");
}

#[test]
fn golden_logits_agree_with_transformers() {
    for folder in folders() {
        let case = case(&folder, EXACT);
        assert_close(&case.name, &case.all(), &case.logits);
    }
}

#[test]
fn scores_in_small_blocks_are_those_of_one() {
    // A few rows at a time.
    let blocks = DeviceSettings { score_bytes: 4096, ..EXACT };
    for folder in folders() {
        let case = case(&folder, blocks);
        assert_close(&case.name, &case.all(), &case.logits);
    }
}

#[test]
fn halves_move_logits_by_little_and_take_half_the_memory() {
    // candle multiplies f16 on the CPU, and bf16 only on a GPU.
    let halves = DeviceSettings { weights: WeightType::F16, kv: KvType::F16, ..EXACT };
    for folder in folders() {
        let (half, whole) = (case(&folder, halves), case(&folder, EXACT));
        let off = worst(&half.all(), &half.logits);
        assert!(off <= 5e-2, "{} is off by {off}", half.name);
        let (half, whole) = (half.model.facts(), whole.model.facts());
        assert_eq!(2 * half.kv_page_bytes, whole.kv_page_bytes);
        assert_eq!(2 * half.weight_bytes, whole.weight_bytes);
        assert!(!half.batch_invariant);
    }
}

#[test]
fn a_held_prefix_and_mixed_groups_change_no_logit() {
    for case in causal() {
        let (features, held) = (case.features(), case.prefix());
        let image = case.model.facts().image_tokens;
        assert_eq!(held.rows(), image + case.prompt.len());
        assert_eq!(held.bytes(), held.rows() as u64 * case.model.facts().kv_page_bytes);
        let prefixes = vec![
            NewPrefix { features: &features, prompt: &case.prompt[..1] },
            NewPrefix { features: &features, prompt: &case.prompt },
        ];
        // Responses of three prefixes in turns, so that their rows have to be put in order.
        let mut suffixes = Vec::new();
        for response in &case.responses {
            suffixes.push(whole(Behind::Cached(&held), response));
            suffixes.push(whole(Behind::New(0), &response[..1]));
            suffixes.push(whole(Behind::New(1), response));
        }
        let logits = case.score(Work { prefixes, suffixes }).logits;
        let every =
            |first: usize| logits.iter().skip(first).step_by(3).cloned().collect::<Vec<_>>();
        assert_close(&case.name, &every(0), &case.logits);
        assert_close(&case.name, &every(2), &case.logits);
    }
}

#[test]
fn every_cut_of_a_response_gives_the_logits_of_the_whole() {
    for case in causal() {
        let prefix = case.prefix();
        for (response, want) in case.responses.iter().zip(&case.logits) {
            for cut in 0..=response.len() {
                let first =
                    Suffix::First { prefix: Behind::Cached(&prefix), tokens: &response[..cut] };
                let mut done = case.score(Work { prefixes: Vec::new(), suffixes: vec![first] });
                let so_far = done.suffixes.remove(0).unwrap();
                assert_eq!(so_far.rows(), cut);
                let mut got = done.logits.remove(0);
                let next = Suffix::Next { so_far, tokens: &response[cut..] };
                // Another item of the batch goes on at the same time.
                let suffixes = vec![whole(Behind::Cached(&prefix), response), next];
                let mut done = case.score(Work { prefixes: Vec::new(), suffixes });
                got.extend(done.logits.remove(1));
                assert_close(
                    &format!("{} cut at {cut}", case.name),
                    &[got],
                    std::slice::from_ref(want),
                );
                let kept = done.suffixes.remove(1).unwrap();
                assert_eq!(kept.rows(), response.len());
                let row = case.model.facts().kv_page_bytes;
                assert_eq!(kept.bytes(), response.len() as u64 * row);
            }
        }
    }
}

#[test]
fn a_later_token_changes_no_earlier_logit() {
    for case in causal() {
        let prefix = case.prefix();
        let response = case.responses.iter().max_by_key(|r| r.len()).unwrap();
        let score = |response: &[u32]| {
            let suffixes = vec![whole(Behind::Cached(&prefix), response)];
            case.score(Work { prefixes: Vec::new(), suffixes }).logits.remove(0)
        };
        let before = score(response);
        for k in 0..response.len() {
            let mut changed = response.clone();
            changed[k] = if changed[k] == 5 { 6 } else { 5 };
            let after = score(&changed);
            assert_eq!(after[..k], before[..k], "{}: token {k} reached an earlier one", case.name);
            assert_ne!(after[k..], before[k..], "{}: token {k} does not see itself", case.name);
        }
    }
}

#[test]
fn costs_are_those_of_the_same_model_on_the_cpu() {
    let folder = folders().into_iter().find(|folder| folder.ends_with("many_kv_heads")).unwrap();
    let opened = ModelFolder::open(&folder, &LoadOptions::default()).unwrap();
    let cpu = opened.load_cpu(KvType::F32).unwrap();
    let device = DeviceModel::load(&opened, &Device::Cpu, EXACT, Arc::new(ThroughHost)).unwrap();
    let shape = PassShape { images: 2, prefixes: vec![20, 30], suffixes: Vec::new() };
    assert_eq!(device.cost(&shape), cpu.cost(&shape));
}
