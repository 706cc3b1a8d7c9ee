//! Parity with transformers and PEFT on the golden files (see `tests/golden/README.md`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use crate::paligemma::{Group, Prefix, PrefixStates};
use crate::{LoadOptions, RewardPaliGemma, SuffixAttention};

/// Absolute, in f32: states are of order 1, logits of order 5.
const TOLERANCE: f32 = 2e-4;

struct Golden(HashMap<String, Tensor>);

// === impl Golden ===

impl Golden {
    fn tensor(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no `{name}`"))
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.tensor(name).to_dtype(DType::U32).unwrap().to_vec1().unwrap()
    }

    fn responses(&self) -> Vec<Vec<u32>> {
        let name = |r: usize| format!("response_ids.{r}");
        (0..64).take_while(|&r| self.0.contains_key(&name(r))).map(|r| self.ids(&name(r))).collect()
    }

    /// `{name}.0`, `{name}.1`, … joined.
    fn joined(&self, name: &str, n: usize) -> Tensor {
        let parts: Vec<_> = (0..n).map(|r| self.tensor(&format!("{name}.{r}"))).collect();
        Tensor::cat(&parts, 0).unwrap()
    }
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/paligemma");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    folders
}

fn open(folder: &Path, tau: f64) -> RewardPaliGemma {
    let adapter = Some(folder.join("adapter")).filter(|p| p.exists());
    RewardPaliGemma::open(folder, &LoadOptions { adapter, tau }, &Device::Cpu)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

fn golden(folder: &Path) -> Golden {
    Golden(candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap())
}

fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    let worst = (got - want).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let worst = worst.to_scalar::<f32>().unwrap();
    assert!(worst <= TOLERANCE, "{what} is off by {worst}");
}

fn assert_logits(what: &str, got: &[Vec<f32>], want: &Tensor) {
    let got = Tensor::new(got.concat(), &Device::Cpu).unwrap();
    assert_close(what, &got, want);
}

#[test]
fn states_and_rewards_agree_with_transformers() {
    let mut checked = 0;
    for folder in cases() {
        let (model, golden) = (open(&folder, 1.0), golden(&folder));
        let (prompt, responses) = (golden.ids("prompt_ids"), golden.responses());
        let image = model.image_rows(golden.tensor("pixel_values")).unwrap().remove(0);
        let at = |what: &str| format!("{} {what}", folder.display());
        assert_close(&at("image_features"), &image, golden.tensor("image_features"));
        let group = Group {
            prefix: Prefix::New { image: &image, prompt: &prompt },
            responses: responses.iter().map(Vec::as_slice).collect(),
        };
        let logits = model.score(std::slice::from_ref(&group)).unwrap();
        assert_logits(&at("logits"), &logits, &golden.joined("logits", responses.len()));
        let rewards = |x: &Tensor| candle_nn::ops::sigmoid(x).unwrap();
        let got = Tensor::new(logits.concat(), &Device::Cpu).unwrap();
        assert_close(
            &at("rewards"),
            &rewards(&got),
            &rewards(&golden.joined("logits", responses.len())),
        );
        let out = model.backbone().forward(&[group], PrefixStates::Keep).unwrap();
        assert_close(&at("prefix"), &out.prefixes.unwrap(), golden.tensor("prefix_hidden"));
        if model.settings().suffix_attention == SuffixAttention::Causal {
            assert_close(&at("hidden"), &out.responses, &golden.joined("hidden", responses.len()));
        }
        checked += 1;
    }
    assert!(checked >= 6, "{checked} golden cases");
}

#[test]
fn adapters_merge_with_tau_as_peft_scales_them() {
    let mut checked = 0;
    for folder in cases() {
        let golden = golden(&folder);
        let Some(tau) = golden.0.get("tau") else { continue };
        let tau = f64::from(tau.to_vec1::<f32>().unwrap()[0]);
        let model = open(&folder, tau);
        let (prompt, responses) = (golden.ids("prompt_ids"), golden.responses());
        let image = model.image_rows(golden.tensor("pixel_values")).unwrap().remove(0);
        let prefix = Prefix::New { image: &image, prompt: &prompt };
        let responses: Vec<&[u32]> = responses.iter().map(Vec::as_slice).collect();
        let logits = model.score(&[Group { prefix, responses: responses.clone() }]).unwrap();
        let want = golden.joined("logits_tau", responses.len());
        assert_logits(&folder.display().to_string(), &logits, &want);
        checked += 1;
    }
    assert!(checked >= 3, "{checked} golden adapters");
}

#[test]
fn a_cached_prefix_and_other_groups_change_no_score() {
    for folder in cases() {
        let (model, golden) = (open(&folder, 1.0), golden(&folder));
        if model.settings().suffix_attention == SuffixAttention::Full {
            continue;
        }
        let (prompt, responses) = (golden.ids("prompt_ids"), golden.responses());
        let image = model.image_rows(golden.tensor("pixel_values")).unwrap().remove(0);
        let new = Prefix::New { image: &image, prompt: &prompt };
        let kv = model.prefill(&[Group { prefix: new, responses: Vec::new() }]).unwrap().remove(0);
        assert_eq!(kv.rows(), image.dim(0).unwrap() + prompt.len());
        let short = Prefix::New { image: &image, prompt: &prompt[..1] };
        let first = responses[0].as_slice();
        let groups = [
            Group { prefix: short, responses: vec![first] },
            Group {
                prefix: Prefix::Cached(&kv),
                responses: responses.iter().map(Vec::as_slice).collect(),
            },
        ];
        let logits = model.score(&groups).unwrap();
        let want = golden.joined("logits", responses.len());
        assert_logits(&folder.display().to_string(), &logits[1..], &want);
    }
}

#[test]
fn a_later_token_changes_no_earlier_score_and_no_prefix_state() {
    for folder in cases() {
        let (model, golden) = (open(&folder, 1.0), golden(&folder));
        if model.settings().suffix_attention == SuffixAttention::Full {
            continue;
        }
        let (prompt, responses) = (golden.ids("prompt_ids"), golden.responses());
        let image = model.image_rows(golden.tensor("pixel_values")).unwrap().remove(0);
        let prefix = Prefix::New { image: &image, prompt: &prompt };
        let response = responses.iter().max_by_key(|r| r.len()).unwrap();
        let run = |response: &[u32]| {
            let group = Group { prefix, responses: vec![response] };
            let out = model.backbone().forward(&[group], PrefixStates::Keep).unwrap();
            let bits = |t: &Tensor| -> Vec<u32> {
                let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values.into_iter().map(f32::to_bits).collect()
            };
            (bits(&out.prefixes.unwrap()), bits(&out.responses))
        };
        let (prefix_states, states) = run(response);
        let hidden = model.backbone().config().text_config.hidden_size;
        for k in 0..response.len() {
            let mut changed = response.clone();
            changed[k] = if changed[k] == 5 { 6 } else { 5 };
            let (prefix_after, after) = run(&changed);
            assert!(prefix_after == prefix_states, "token {k} reached the prefix");
            assert!(
                after[..k * hidden] == states[..k * hidden],
                "token {k} reached an earlier one"
            );
            assert!(after[k * hidden..] != states[k * hidden..], "token {k} does not see itself");
        }
    }
}

#[test]
fn tau_zero_is_the_base_bit_for_bit() {
    for folder in cases().iter().filter(|f| f.join("adapter").exists()) {
        let golden = golden(folder);
        let of = |model: &RewardPaliGemma| {
            let rows = model.image_rows(golden.tensor("pixel_values")).unwrap().remove(0);
            rows.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let adapted = open(folder, 0.0);
        let checkpoint = crate::checkpoint::Checkpoint::open(folder).unwrap();
        let config = adapted.backbone().config().clone();
        let plain = checkpoint
            .build(&Device::Cpu, |vb| crate::paligemma::PaliGemma::load(&config, vb))
            .unwrap();
        let rows = plain.see(golden.tensor("pixel_values")).unwrap();
        let base = plain.project(&rows.get(0).unwrap()).unwrap();
        assert_eq!(of(&adapted), base.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
}
