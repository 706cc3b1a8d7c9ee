use super::*;

pub(in super::super) fn tiny() -> Recipe {
    let mut recipe = Recipe::mini();
    // One stage of each kind.
    recipe.stages.dedup_by_key(|s| s.kind);
    recipe.architecture = Some(super::super::Architecture {
        image_size: 16,
        patch_size: 8,
        vision_hidden: 16,
        vision_mlp: 16,
        vision_layers: 1,
        vision_heads: 2,
        hidden: 16,
        mlp: 24,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 8,
    });
    recipe.lora.rank = 4;
    recipe.lora.dropout = 0.1;
    for stage in &mut recipe.stages {
        (stage.steps, stage.images, stage.responses, stage.warmup) = (3, 3, 2, 1);
    }
    recipe
}

fn weights(run: &Run) -> Vec<(String, Vec<u8>)> {
    let mut all = run.base.tensors("base.");
    all.extend(run.lora.tensors("lora."));
    let mut named: Vec<_> = all
        .into_iter()
        .map(|(n, t)| {
            let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (n, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    named.sort();
    named
}

#[test]
fn a_resumed_run_ends_in_the_same_bits() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut one = Run::open(whole.path(), &tiny(), &Sources::default()).unwrap();
    one.advance(u64::MAX, 100, &mut |_| ()).unwrap();
    assert!(one.is_done());
    // Cuts inside every stage and at a border.
    for steps in [2, 1, 2, 3, 1] {
        let mut part = Run::open(cut.path(), &tiny(), &Sources::default()).unwrap();
        part.advance(steps, 100, &mut |_| ()).unwrap();
    }
    let two = Run::open(cut.path(), &tiny(), &Sources::default()).unwrap();
    assert!(two.is_done());
    assert!(weights(&one) == weights(&two));
}

#[test]
fn every_trained_tensor_changes_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::open(folder.path(), &tiny(), &Sources::default()).unwrap();
    let mut before = weights(&run);
    for stage in ["vision", "pretrain", "reward"] {
        // The last stage's A moves only once B is not zero, so look after all its steps.
        run.advance(3, 100, &mut |_| ()).unwrap();
        let after = weights(&run);
        for (name, value) in &after {
            let old = before.iter().find(|(n, _)| n == name);
            let (Some((_, old)), false) = (old, name.starts_with("lora.") && stage != "reward")
            else {
                continue;
            };
            let trained = match stage {
                "vision" => {
                    name.starts_with("base.vision_tower") || name.starts_with("base.patch_head")
                }
                // The recipe gives the pretraining stage token labels too, so the head moves.
                "pretrain" => name.starts_with("base."),
                _ => name.starts_with("lora."),
            };
            assert_eq!(old != value, trained, "{name} after {stage}");
        }
        before = after;
    }
}

#[test]
fn another_recipe_in_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Run::open(folder.path(), &tiny(), &Sources::default()).unwrap();
    let other = Recipe { seed: 8, ..tiny() };
    assert!(
        Run::open(folder.path(), &other, &Sources::default())
            .unwrap_err()
            .to_string()
            .contains("another recipe")
    );
}
