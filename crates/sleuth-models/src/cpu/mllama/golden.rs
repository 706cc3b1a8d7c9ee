//! Parity with transformers 4.54.1 and PEFT on the golden files (see `tests/golden/README.md`).

use super::case::{Case, folders, off, space};
use crate::BeforeImage;
use crate::cpu::KvType;

/// Absolute, in f32: states are of order 1, logits of order 5.
const TOLERANCE: f32 = 2e-4;

fn assert_close(case: &Case, what: &str, got: &[f32], want: &[f32]) {
    let off = off(got, want);
    println!("{} {what}: {off:e}", case.name);
    assert!(off <= TOLERANCE, "{} {what} is off by {off}", case.name);
}

fn rewards(logits: &[f32]) -> Vec<f32> {
    logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect()
}

#[test]
fn the_tower_and_the_projector_agree_with_transformers() {
    for case in Case::all(KvType::F32) {
        let (states, projected) = case.model.image_states(&mut space(2), &case.pixels);
        assert_close(&case, "vision output", &states, &case.values("vision_output"));
        assert_close(&case, "image states", &projected, &case.values("image_states"));
    }
}

#[test]
fn states_behind_every_layer_agree_with_transformers() {
    let mut checked = 0;
    for mut case in Case::all(KvType::F32) {
        let mut space = space(2);
        let prompt = case.prompt.len();
        for depth in (1..case.model.layers.len()).rev() {
            case.model.layers.truncate(depth);
            let got = case.states(&mut space, prompt);
            let name = format!("layer.{}", depth - 1);
            assert_close(&case, &name, &got, &case.values(&name));
            checked += 1;
        }
    }
    assert!(checked >= 50, "{checked} layers");
}

#[test]
fn states_of_prompt_and_responses_agree_with_transformers() {
    for case in Case::all(KvType::F32) {
        let mut space = space(2);
        // All is causal: the prompt behind its image is as good a response as any.
        let image = case.model.config().image_token_index;
        let from = 1 + case.prompt.iter().position(|id| *id == image).unwrap();
        let hidden = case.model.config().text_config.hidden_size;
        let want =
            [&case.values("prefix_hidden")[from * hidden..], &case.values("hidden.0")].concat();
        assert_close(&case, "states", &case.states(&mut space, from), &want);
    }
}

#[test]
fn rewards_agree_with_transformers() {
    let cases = Case::all(KvType::F32);
    assert!(cases.len() >= 7, "{} cases", cases.len());
    for case in cases {
        for (got, want) in case.score(&mut space(2)).iter().zip(&case.logits("logits")) {
            assert_close(&case, "logits", got, want);
            assert_close(&case, "rewards", &rewards(got), &rewards(want));
        }
    }
}

#[test]
fn adapters_merge_with_tau_as_peft_scales_them() {
    let mut checked = 0;
    for folder in folders().iter().filter(|folder| folder.join("adapter").exists()) {
        let whole = Case::open(folder, KvType::F32, 1.0, BeforeImage::Attends);
        let tau = f64::from(whole.values("tau")[0]);
        let case = Case::open(folder, KvType::F32, tau, BeforeImage::Attends);
        for (got, want) in case.score(&mut space(1)).iter().zip(&case.logits("logits_tau")) {
            assert_close(&case, "logits with tau", got, want);
        }
        checked += 1;
    }
    assert!(checked >= 2, "{checked} golden adapters");
}

#[test]
fn text_before_the_image_can_take_nothing_of_it_as_metas_code_has_it() {
    let mut checked = 0;
    for folder in folders() {
        let case = Case::open(&folder, KvType::F32, 1.0, BeforeImage::Skips);
        if !case.has("logits_meta.0") {
            continue;
        }
        for (got, want) in case.score(&mut space(2)).iter().zip(&case.logits("logits_meta")) {
            assert_close(&case, "logits by Meta's rule", got, want);
        }
        checked += 1;
    }
    assert!(checked >= 5, "{checked} cases with text before the image");
}

#[test]
fn keys_and_values_in_f16_move_logits_by_little() {
    for case in Case::all(KvType::F16) {
        for (got, want) in case.score(&mut space(1)).iter().zip(&case.logits("logits")) {
            let off = off(got, want);
            assert!(off <= 2e-2, "{} is off by {off}", case.name);
        }
    }
}
