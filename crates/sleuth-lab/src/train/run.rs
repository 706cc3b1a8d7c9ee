#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use rayon::{ThreadPool, ThreadPoolBuilder};
use sleuth_models::RewardHead;
use sleuth_models::paligemma::{PaliGemma, PaliGemmaConfig};

use super::inputs::Inputs;
use super::objective::{Learner, PATCH_CLASSES, Tally};
use super::optimiser::{Gradients, Optimiser};
use super::parameters::{LoraDropout, Parameters};
use super::recipe::{Recipe, Stage, StageKind};
use super::sources::{Opened, School, Sources};

/// A batch is always cut into so many shards, each summed in order, and the shards in order: the
/// number of cores changes no bit.
const SHARDS: usize = 2;
const CHECKPOINT: &str = "checkpoint.safetensors";
const RECIPE: &str = "recipe.json";
/// Images of different stages do not repeat each other's.
const STAGE_STRIDE: u64 = 1 << 32;

/// A training run in a folder: recipe, tokenizer and the newest checkpoint.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    pub(super) recipe: Recipe,
    pub(super) config: PaliGemmaConfig,
    pub(super) tokenizer_json: String,
    pub(super) preprocessor_json: String,
    /// Whether only an adapter is trained, for a model that has its own folder.
    pub(super) adapter_alone: bool,
    inputs: Inputs,
    /// The same of the validation split.
    held_out: Inputs,
    /// The base's parameters, the heads among them.
    pub(super) base: Parameters,
    /// The adapter's pairs, from the reward stage on.
    pub(super) lora: Parameters,
    optimiser: Optimiser,
    /// The stage under way, `recipe.stages.len()` when all are done, and its next step.
    stage: usize,
    step: u64,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The stage's place in the recipe.
    pub stage: usize,
    /// What it learns.
    pub kind: StageKind,
    /// Steps done.
    pub step: u64,
    /// Steps of this stage.
    pub steps: u64,
    /// The step's loss per patch or token.
    pub loss: f64,
    /// Share of objects' patches named rightly (vision), or of responses judged rightly.
    pub accuracy: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// Texts of the step; images in the vision stage.
    pub texts: u64,
}

/// Receives progress after every step.
pub type Report<'a> = dyn FnMut(&Progress) + 'a;

// === impl Run ===

impl Run {
    /// Starts a run in an empty folder, or goes on with the one there; another recipe in the
    /// folder, or other sources, are errors.
    pub fn open(folder: &Path, recipe: &Recipe, sources: &Sources) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let dropout = recipe.lora.dropout;
        ensure!((0.0..1.0).contains(&dropout), "lora.dropout is {dropout}; it must lie in 0..1");
        let opened = sources.open(folder, recipe)?;
        let recipe_path = folder.join(RECIPE);
        if recipe_path.exists() {
            let stored: Recipe = serde_json::from_str(&fs::read_to_string(&recipe_path)?)?;
            ensure!(stored == *recipe, "{} holds a run of another recipe", folder.display());
        } else {
            fs::write(&recipe_path, serde_json::to_string_pretty(recipe)?)?;
        }
        let mut run = Self::fresh(folder, recipe, opened)?;
        if folder.join(CHECKPOINT).exists() {
            run.restore()?;
        }
        Ok(run)
    }

    fn fresh(folder: &Path, recipe: &Recipe, opened: Opened) -> Result<Self> {
        let Opened { stored, school } = opened;
        let School { config, tokenizer_json, preprocessor_json, inputs, held_out } = school;
        let build = |vb: &candle_nn::VarBuilder<'_>| learner(&config, vb);
        let (base, _) = match &stored {
            None => Parameters::default().create(recipe.seed, build)?,
            Some(stored) => Parameters::read(stored, recipe.seed, build)?,
        };
        let first = recipe.stages.first().context("the recipe has no stage")?;
        let optimiser = Optimiser::new(Parameters::default(), first)?;
        let mut run = Self {
            folder: folder.to_owned(),
            recipe: recipe.clone(),
            config,
            tokenizer_json,
            preprocessor_json,
            adapter_alone: stored.is_some() && !recipe.trains_base(),
            held_out: inputs.of(held_out),
            inputs,
            base,
            lora: Parameters::default(),
            optimiser,
            stage: 0,
            step: 0,
        };
        run.enter_stage()?;
        Ok(run)
    }

    /// Whether every stage is done.
    pub fn is_done(&self) -> bool {
        self.stage >= self.recipe.stages.len()
    }

    /// Steps until every stage is done.
    pub fn steps_left(&self) -> u64 {
        let left: u64 = self.recipe.stages.iter().skip(self.stage).map(|s| s.steps).sum();
        left.saturating_sub(self.step)
    }

    /// The stage under way and its steps done; the last stage's where all are done.
    pub fn position(&self) -> (StageKind, u64) {
        let stages = &self.recipe.stages;
        let last = || stages.last().map_or((StageKind::Vision, 0), |s| (s.kind, s.steps));
        stages.get(self.stage).map_or_else(last, |s| (s.kind, self.step))
    }

    /// Steps until the stage's number of steps is a multiple of `every`, or the stage ends; at
    /// least 1.
    pub fn steps_until_multiple_of(&self, every: u64) -> u64 {
        let left = self.recipe.stages.get(self.stage).map_or(0, |s| s.steps - self.step);
        (every - self.step % every).min(left).max(1)
    }

    /// Runs until every stage is done or `budget` steps were taken, saving a checkpoint every
    /// `checkpoint_every` steps and at the end.
    pub fn advance(
        &mut self,
        budget: u64,
        checkpoint_every: u64,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let pools = (0..SHARDS)
            .map(|_| ThreadPoolBuilder::new().num_threads(1).build())
            .collect::<Result<Vec<_>, _>>()?;
        let mut learner = self.practising()?;
        for taken in 0..budget {
            if self.is_done() {
                break;
            }
            let progress = self.take_step(&learner, &pools)?;
            report(&progress);
            if self.step == progress.steps {
                self.stage += 1;
                self.step = 0;
                if !self.is_done() {
                    self.enter_stage()?;
                }
                learner = self.practising()?;
                self.save()?;
            } else {
                if progress.kind == StageKind::Reward {
                    learner = self.practising()?;
                }
                if (taken + 1) % checkpoint_every == 0 {
                    self.save()?;
                }
            }
        }
        self.save()
    }

    /// The present stage's loss per unit and accuracy on the first `images` pictures of the
    /// validation split; nothing where there are none.
    pub fn validate(&self, images: u64) -> Result<Option<(f64, f64)>> {
        let Some(stage) = self.recipe.stages.get(self.stage) else {
            bail!("every stage is done; use `sleuth eval`");
        };
        let learner = self.learner()?;
        let mut tally = Tally::default();
        let images: Vec<u64> =
            (0..self.held_out.lessons.len().unwrap_or(images).min(images)).collect();
        if images.is_empty() {
            return Ok(None);
        }
        for images in images.chunks(8) {
            tally.add(learner.loss(stage, self.step, &self.held_out, images)?.tally);
        }
        let units = tally.units.max(1) as f64;
        Ok(Some((tally.loss / units, tally.right as f64 / tally.judged.max(1) as f64)))
    }

    fn take_step(&mut self, learner: &Learner, pools: &[ThreadPool]) -> Result<Progress> {
        let stage = self.recipe.stages[self.stage].clone();
        let (mut gradients, tally) = self.gradients(&stage, learner, pools)?;
        let units = tally.units.max(1) as f64;
        for gradient in gradients.values_mut() {
            *gradient = (&*gradient / units)?;
        }
        let learning_rate = stage.learning_rate_at(self.step);
        let gradient_norm = self.optimiser.step(self.step, &gradients, learning_rate)?;
        self.step += 1;
        Ok(Progress {
            stage: self.stage,
            kind: stage.kind,
            step: self.step,
            steps: stage.steps,
            loss: tally.loss / units,
            accuracy: tally.right as f64 / tally.judged.max(1) as f64,
            gradient_norm,
            learning_rate,
            texts: (stage.images * stage.responses.max(1)) as u64,
        })
    }

    /// Summed gradients of one batch. Each shard runs on a thread of its own.
    fn gradients(
        &self,
        stage: &Stage,
        learner: &Learner,
        pools: &[ThreadPool],
    ) -> Result<(Gradients, Tally)> {
        let first = self.stage as u64 * STAGE_STRIDE + self.step * stage.images as u64;
        let shards: Vec<Result<(Gradients, Tally)>> = std::thread::scope(|scope| {
            let handles: Vec<_> = pools
                .iter()
                .enumerate()
                .map(|(shard, pool)| {
                    let images =
                        (shard..stage.images).step_by(SHARDS).map(move |i| first + i as u64);
                    scope.spawn(move || {
                        pool.install(|| self.shard_gradients(stage, learner, images))
                    })
                })
                .collect();
            let joined = handles.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined.map(|r| r.unwrap_or_else(|_| bail!("a training thread panicked"))).collect()
        });
        let mut total = (Gradients::new(), Tally::default());
        for shard in shards {
            let (gradients, tally) = shard?;
            total.1.add(tally);
            add_gradients(&mut total.0, gradients)?;
        }
        Ok(total)
    }

    fn shard_gradients(
        &self,
        stage: &Stage,
        learner: &Learner,
        images: impl Iterator<Item = u64>,
    ) -> Result<(Gradients, Tally)> {
        let images: Vec<u64> = images.collect();
        if images.is_empty() {
            return Ok((Gradients::new(), Tally::default()));
        }
        let loss = learner.loss(stage, self.step, &self.inputs, &images)?;
        let store = loss.sum.backward()?;
        let own =
            self.optimiser.trained().iter().filter_map(|(name, var)| {
                Some((name.clone(), store.get(var.as_tensor())?.clone()))
            });
        Ok((own.collect(), loss.tally))
    }

    /// Chooses what the stage trains and starts its optimiser.
    fn enter_stage(&mut self) -> Result<()> {
        let stage = &self.recipe.stages[self.stage];
        let trained = match stage.kind {
            StageKind::Vision => {
                self.base.subset(|n| n.starts_with("vision_tower.") || n.starts_with("patch_head."))
            }
            StageKind::Pretrain => self.base.subset(|n| {
                n.starts_with("patch_head.") && stage.patch_weight.from > 0.0
                    || n.starts_with("score.") && stage.label_weight > 0.0
                    || !n.starts_with("patch_head.") && !n.starts_with("score.")
            }),
            StageKind::Reward => {
                let lora = self.recipe.lora;
                self.lora = self
                    .base
                    .lora_pairs(lora.rank, self.recipe.seed, |m| lora.targets.adapts(m))?;
                // The adapter has a head of its own; the base keeps the one it has.
                for name in ["score.weight", "score.bias"] {
                    let head =
                        self.base.get(name).context("the base has no head")?.as_tensor().clone();
                    self.lora.insert(name, &head)?;
                }
                self.lora.clone()
            }
        };
        self.optimiser = Optimiser::new(trained, stage)?;
        Ok(())
    }

    /// The model as the next step trains it.
    fn practising(&self) -> Result<Learner> {
        let chance = self.recipe.lora.dropout;
        let seed =
            self.recipe.seed ^ (self.stage as u64 * STAGE_STRIDE + self.step).rotate_left(20);
        self.learner_with((chance > 0.0).then_some(LoraDropout { chance, seed }))
    }

    /// The model as the current stage sees it.
    fn learner(&self) -> Result<Learner> {
        self.learner_with(None)
    }

    fn learner_with(&self, dropout: Option<LoraDropout>) -> Result<Learner> {
        let kind = self.recipe.stages.get(self.stage).or(self.recipe.stages.last()).map(|s| s.kind);
        let built = if kind == Some(StageKind::Reward) {
            let scale = self.recipe.lora.alpha / self.recipe.lora.rank as f64;
            let adapted = self
                .base
                .build_adapted(&self.lora, scale, dropout, |vb| learner(&self.config, vb))?;
            let own = |name: &str| {
                self.lora
                    .get(name)
                    .map(|v| v.as_tensor().clone())
                    .context("the adapter has no head")
            };
            Learner { head: RewardHead::new(own("score.weight")?, own("score.bias")?), ..adapted }
        } else {
            self.base.clone().create(self.recipe.seed, |vb| learner(&self.config, vb))?.1
        };
        Ok(built)
    }

    /// Everything needed to go on with the same bits, in one file that replaces the last at once. A
    /// base that is never trained stays in its own folder alone.
    fn save(&self) -> Result<()> {
        let mut tensors = HashMap::new();
        if !self.adapter_alone {
            tensors.extend(self.base.tensors("base."));
        }
        tensors.extend(self.lora.tensors("lora."));
        tensors.extend(self.optimiser.tensors());
        let position = [self.stage as u32, (self.step >> 32) as u32, self.step as u32];
        tensors.insert("position".to_owned(), Tensor::new(&position, &Device::Cpu)?);
        let (path, next) = (self.folder.join(CHECKPOINT), self.folder.join("checkpoint.tmp"));
        candle_core::safetensors::save(&tensors, &next)?;
        fs::rename(next, path)?;
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        let path = self.folder.join(CHECKPOINT);
        let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let position =
            tensors.get("position").context("the checkpoint has no position")?.to_vec1::<u32>()?;
        let [stage, high, low] = position[..] else {
            bail!("the checkpoint's position is damaged")
        };
        self.stage = stage as usize;
        self.step = (u64::from(high) << 32) | u64::from(low);
        if !self.adapter_alone {
            self.base = Parameters::from_tensors(&tensors, "base.")?;
        }
        if !self.is_done() {
            self.enter_stage()?;
        }
        let lora = Parameters::from_tensors(&tensors, "lora.")?;
        if lora.iter().next().is_some() {
            self.lora = lora;
        }
        if !self.is_done() {
            let stage = &self.recipe.stages[self.stage];
            if stage.kind == StageKind::Reward {
                self.optimiser = Optimiser::new(self.lora.clone(), stage)?;
            }
            self.optimiser.restore(&tensors)?;
        }
        Ok(())
    }
}

fn learner(
    config: &PaliGemmaConfig,
    vb: &candle_nn::VarBuilder<'_>,
) -> candle_core::Result<Learner> {
    let hidden = config.text_config.hidden_size;
    let score = vb.pp("score");
    Ok(Learner {
        backbone: PaliGemma::load(config, vb)?,
        head: RewardHead::new(score.get((1, hidden), "weight")?, score.get(1, "bias")?),
        patch_head: vb
            .pp("patch_head")
            .get((PATCH_CLASSES, config.vision_config.hidden_size), "weight")?,
    })
}

fn add_gradients(total: &mut Gradients, more: Gradients) -> Result<()> {
    for (name, gradient) in more {
        let sum = match total.remove(&name) {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        };
        total.insert(name, sum.detach());
    }
    Ok(())
}
