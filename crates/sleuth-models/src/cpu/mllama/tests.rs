//! The same bits whatever stands around an item, and nothing seen that is not to be seen.

use super::case::{Case, bits, folders, space, whole};
use crate::backbone::PassError;
use crate::cpu::{Behind, KvType, NewPrefix, Suffix, Work};
use crate::mllama::MllamaConfig;
use crate::{BeforeImage, LoadOptions};

use super::MllamaCpu;

fn all_bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits.iter().map(|l| bits(l)).collect()
}

#[test]
fn threads_neighbours_and_order_change_no_bit() {
    for kv in [KvType::F32, KvType::F16] {
        for case in Case::all(kv) {
            let want = all_bits(&case.score(&mut space(1)));
            for threads in [2, 5] {
                assert!(all_bits(&case.score(&mut space(threads))) == want, "{}", case.name);
            }
            let mut space = space(2);
            let image = case.image(&mut space);
            // The image is seen anew for the second prefix, and shared with the third.
            let again = case.image(&mut space);
            let short = [case.prompt.as_slice(), &[9]].concat();
            let prefixes = vec![
                NewPrefix { features: &image, prompt: &short },
                NewPrefix { features: &again, prompt: &case.prompt },
                NewPrefix { features: &image, prompt: &case.prompt },
            ];
            let mut suffixes = vec![whole(Behind::New(0), &case.responses[0])];
            for response in case.responses.iter().rev() {
                suffixes.push(whole(Behind::New(1), response));
                suffixes.push(whole(Behind::New(0), &response[..1]));
                suffixes.push(whole(Behind::New(2), response));
            }
            let done = case.model.score(&mut space, Work { prefixes, suffixes }).unwrap();
            for first in [1, 3] {
                let got: Vec<_> =
                    done.logits.iter().skip(first).step_by(3).rev().map(|l| bits(l)).collect();
                assert!(got == want, "{}", case.name);
            }
        }
    }
}

#[test]
fn every_cut_of_a_response_gives_the_bits_of_the_whole() {
    for kv in [KvType::F32, KvType::F16] {
        for case in Case::all(kv) {
            let mut space = space(2);
            let want = case.score(&mut space);
            let prefix = case.prefix(&mut space);
            for (response, want) in case.responses.iter().zip(&want) {
                for cut in 0..=response.len() {
                    let first =
                        Suffix::First { prefix: Behind::Cached(&prefix), tokens: &response[..cut] };
                    let work = Work { prefixes: Vec::new(), suffixes: vec![first] };
                    let mut done = case.model.score(&mut space, work).unwrap();
                    let so_far = done.suffixes.remove(0).unwrap();
                    let mut got = done.logits.remove(0);
                    let next = Suffix::Next { so_far, tokens: &response[cut..] };
                    // Another item of the batch goes on at the same time.
                    let other = whole(Behind::Cached(&prefix), response);
                    let work = Work { prefixes: Vec::new(), suffixes: vec![other, next] };
                    let mut done = case.model.score(&mut space, work).unwrap();
                    got.extend(done.logits.remove(1));
                    assert_eq!(bits(&got), bits(want), "{} cut at {cut}", case.name);
                    let kept = done.suffixes.remove(1).unwrap();
                    assert_eq!(kept.rows(), response.len());
                    assert_eq!(kept.bytes(), case.model.kv_bytes(kept.rows()));
                }
            }
        }
    }
}

#[test]
fn a_cached_prefix_and_a_shared_image_give_the_bits_of_computed_ones() {
    for kv in [KvType::F32, KvType::F16] {
        for case in Case::all(kv) {
            let mut space = space(2);
            let want = case.score(&mut space);
            let prefix = case.prefix(&mut space);
            let image = case.image(&mut space);
            assert_eq!(prefix.rows(), case.prompt.len());
            assert_eq!(prefix.bytes(), case.model.kv_bytes(prefix.rows()) + image.bytes());
            assert_eq!(image.bytes(), MllamaCpu::image_bytes_of(case.model.config(), kv));
            for (response, want) in case.responses.iter().zip(&want) {
                // The image's keys and values of an earlier pass, under a new prefix.
                let prefixes = vec![NewPrefix { features: &image, prompt: &case.prompt }];
                let suffixes =
                    vec![whole(Behind::Cached(&prefix), response), whole(Behind::New(0), response)];
                let got = case.model.score(&mut space, Work { prefixes, suffixes }).unwrap().logits;
                for got in got {
                    assert_eq!(bits(&got), bits(want), "{}", case.name);
                }
            }
        }
    }
}

#[test]
fn a_later_token_changes_no_earlier_score_and_no_prefix() {
    for case in Case::all(KvType::F32) {
        let mut space = space(2);
        let image = case.image(&mut space);
        let response = case.responses.iter().max_by_key(|r| r.len()).unwrap();
        let mut run = |response: &[u32], next: &[u32]| {
            let prefixes = vec![NewPrefix { features: &image, prompt: &case.prompt }];
            let suffixes = vec![whole(Behind::New(0), response), whole(Behind::New(0), next)];
            let mut done = case.model.score(&mut space, Work { prefixes, suffixes }).unwrap();
            let prefix = done.prefixes.remove(0);
            // What another response behind the prefix of that pass gets.
            let suffixes = vec![whole(Behind::Cached(&prefix), next)];
            let work = Work { prefixes: Vec::new(), suffixes };
            let behind = case.model.score(&mut space, work).unwrap().logits.remove(0);
            (bits(&done.logits[0]), bits(&done.logits[1]), bits(&behind))
        };
        let next = &case.responses[0];
        let (want, other, behind) = run(response, next);
        for k in 0..response.len() {
            let mut changed = response.clone();
            changed[k] = if changed[k] == 5 { 6 } else { 5 };
            let (got, other_after, behind_after) = run(&changed, next);
            assert!(got[..k] == want[..k], "{}: token {k} reached an earlier one", case.name);
            assert!(got[k..] != want[k..], "{}: token {k} does not see itself", case.name);
            assert!(other_after == other, "{}: token {k} reached a neighbour", case.name);
            assert!(behind_after == behind, "{}: token {k} reached the prefix", case.name);
        }
    }
}

#[test]
fn the_image_and_each_of_its_tiles_are_seen() {
    for case in Case::all(KvType::F32) {
        let mut space = space(2);
        let want = all_bits(&case.score(&mut space));
        let side = case.model.config().vision_config.image_size;
        let (height, width) = (case.pixels.height() as usize, case.pixels.width() as usize);
        for (y, x) in
            (0..height).step_by(side).flat_map(|y| (0..width).step_by(side).map(move |x| (y, x)))
        {
            let mut values = case.pixels.values().to_vec();
            values[y * width + x] += 1.0;
            let pixels =
                sleuth_core::Pixels::try_new(height as u32, width as u32, values.into()).unwrap();
            let image = case.model.see(&mut space, &[&pixels]).unwrap().remove(0);
            let prefixes = vec![NewPrefix { features: &image, prompt: &case.prompt }];
            let suffixes = case.responses.iter().map(|r| whole(Behind::New(0), r)).collect();
            let got = case.model.score(&mut space, Work { prefixes, suffixes }).unwrap().logits;
            assert!(all_bits(&got) != want, "{}: the tile at {y}, {x}", case.name);
        }
    }
}

#[test]
fn a_canvas_or_a_prompt_that_does_not_belong_to_the_model_is_refused() {
    let case = Case::open(&folders()[0], KvType::F32, 1.0, BeforeImage::Attends);
    let mut space = space(1);
    let odd = sleuth_core::Pixels::try_new(28, 30, vec![0.0; 3 * 28 * 30].into()).unwrap();
    let error = case.model.see(&mut space, &[&odd]).unwrap_err();
    assert!(matches!(error, PassError::Canvas { height: 28, width: 30, tile: 28 }), "{error}");
    let image = case.image(&mut space);
    for (prompt, found) in
        [(vec![7, 8], 0), ([case.prompt.clone(), case.prompt.clone()].concat(), 2)]
    {
        let prefixes = vec![NewPrefix { features: &image, prompt: &prompt }];
        let work = Work { prefixes, suffixes: Vec::new() };
        let error = case.model.score(&mut space, work).unwrap_err();
        assert!(matches!(error, PassError::ImagePlaces { found: f } if f == found), "{error}");
    }
}

#[test]
fn weights_are_known_before_they_are_packed() {
    for folder in folders() {
        let case = Case::open(&folder, KvType::F32, 1.0, BeforeImage::Attends);
        let want = MllamaCpu::weight_bytes_of(case.model.config());
        assert_eq!(case.model.weight_bytes(), want, "{}", case.name);
    }
    let config = r#"{"model_type": "mllama", "vision_config": {"image_size": 560}}"#;
    let config = MllamaConfig::from_json(config).unwrap();
    let gigabytes = MllamaCpu::weight_bytes_of(&config) as f64 / 1e9;
    assert!((38.0..42.0).contains(&gigabytes), "{gigabytes}");
    let image = MllamaCpu::image_bytes_of(&config, KvType::F16) as f64 / 1e6;
    assert!((200.0..220.0).contains(&image), "{image}");
}

#[test]
fn full_attention_is_refused_and_a_missing_tensor_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let from = folders().into_iter().find(|f| f.ends_with("two_tiles")).unwrap();
    for name in ["config.json", "model.safetensors", "reward_head.safetensors"] {
        std::fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    let open = || crate::mllama::MllamaFolder::open(folder.path(), &LoadOptions::default());
    let settings = folder.path().join("reward_config.json");
    std::fs::write(&settings, r#"{"suffix_attention": "full"}"#).unwrap();
    assert!(open().unwrap_err().to_string().contains("suffix_attention"));
    std::fs::write(&settings, r#"{"before_image": "skips"}"#).unwrap();
    let version = open().unwrap().version(KvType::F32);
    std::fs::write(folder.path().join("chat_template.json"), "{}").unwrap();
    assert_ne!(open().unwrap().version(KvType::F32), version);
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let deeper = config.replace("\"num_global_layers\": 2", "\"num_global_layers\": 3");
    assert_ne!(deeper, config);
    std::fs::write(folder.path().join("config.json"), deeper).unwrap();
    let error = open().unwrap().load_cpu(KvType::F32).unwrap_err().to_string();
    assert!(error.contains("vision_model.global_transformer.layers.2"), "{error}");
}
