//! Pictures whose truth is known: drawn scenes with captions, questions and false edits.
//!
//! A scene holds 1 to 4 objects of 8 kinds, 8 colours and 2 sizes on a muted background. Everything
//! said of it is built from claims ([`Fact`]) that code can check, so a clean text is true and an
//! edited one is false exactly where its labels say. The taxonomies are those of the TLDR paper
//! (appendix A.3) but `text_ocr`, since no written words are drawn.
//!
//! Invariants
//! - Equal (split, seed, index) give equal scenes, texts and pictures, on any machine.
//! - Training neither draws nor names the 8 held-out (kind, colour) pairs; validation and test do.
//! - A word is labelled only if an edit changed it; labels lie on whole words.

mod dice;
mod example;
mod fact;
mod folder;
mod layout;
mod perturb;
mod plan;
mod render;
mod sentence;
mod shape;
mod vocabulary;

pub use example::{CAPTION_PROMPT, Response, SOURCE, SceneExample, example, question_example};
pub use fact::{Description, Fact, Half, Relation, Truth};
pub use folder::{ANSWERS, CAPTIONS, FolderError, IMAGE_SIDE, Summary, write_folder};
pub use layout::{Background, Object, Scene, Split, UnknownSplit, is_held_out};
pub use render::{PATCH_SHARE, PatchTruth, patch_truth, render};
pub use sentence::Sentence;
pub use shape::{Colour, Kind, Size};
pub use vocabulary::vocabulary;
