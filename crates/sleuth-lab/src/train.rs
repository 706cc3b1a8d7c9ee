//! Training on drawn scenes: first the vision tower learns to name what each patch shows, then the
//! decoder to caption and to judge, then a LoRA adapter and the reward head, as TLDR trains them.
//!
//! Every step is a function of (recipe, step), so a run that was stopped and resumed ends in the
//! same bits as one that was not.

mod export;
mod inputs;
mod losses;
mod muon;
mod objective;
mod optimiser;
mod parameters;
mod recipe;
mod run;
mod tokenizer;

pub use export::export;
pub use recipe::{
    Algorithm, Architecture, LoraRecipe, LoraTargets, Objective, Ramp, Recipe, Stage, StageKind,
};
pub use run::{Progress, Report, Run};
pub use tokenizer::scene_tokenizer;
