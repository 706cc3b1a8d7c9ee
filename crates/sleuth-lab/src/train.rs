//! Training on drawn scenes: first the vision tower learns to name what each patch shows, then the
//! decoder to caption and to judge, then a LoRA adapter and the reward head, as TLDR trains them;
//! or the last alone, for a PaliGemma folder, on a folder of real images.
//!
//! Every step is a function of (recipe, step), so a run that was stopped and resumed ends in the
//! same bits as one that was not.

mod export;
mod folder;
mod footprint;
mod inputs;
mod lessons;
mod losses;
mod muon;
mod objective;
mod optimiser;
mod parameters;
mod plot;
mod recipe;
mod run;
mod sources;
mod tokenizer;

pub use export::{Exported, export};
pub use footprint::{Footprint, footprints};
pub use plot::plot_log;
pub use recipe::{
    Algorithm, Architecture, LoraRecipe, LoraTargets, Objective, Ramp, Recipe, Stage, StageKind,
};
pub use run::{Progress, Report, Run};
pub use sources::Sources;
pub use tokenizer::scene_tokenizer;
