//! Pictures whose truth is known: drawn scenes with captions, questions and false edits.
//!
//! A scene holds 2 to 6 objects of 24 kinds in 8 colours, 4 patterns and 2 sizes, often a sign with
//! a word on it, on a muted background with textures and marks; some things cover others, are cut
//! by the edge or stand upside down; some pictures are blurred or went through JPEG. Everything said
//! of a scene is built from claims ([`Fact`]) that code can check, so a clean text is true and an
//! edited one is false exactly where its labels say. The taxonomies are the eight of the TLDR paper
//! (appendix A.3).
//!
//! Invariants
//! - Equal (split, seed, index) give equal scenes, texts and pictures, on any machine.
//! - Training neither draws nor names the 24 held-out (kind, colour) pairs; validation and test do.
//! - A word is labelled only if an edit changed it; labels lie on whole words.
//! - Taxonomies take turns among the perturbed captions.

mod artefacts;
mod background;
mod colour;
mod dice;
mod example;
mod fact;
mod folder;
mod judged;
mod layout;
mod patches;
mod perturb;
mod plan;
mod practice;
mod read;
mod render;
mod sentence;
mod shape;
mod sign;
mod split;
mod vocabulary;

pub use artefacts::Artefacts;
pub use background::{Background, Blend, Mark, Texture};
pub use colour::{Colour, Pattern};
pub use example::{
    CAPTION_PROMPT, Response, SOURCE, SceneExample, clean_example, clean_question_example, example,
    question_example,
};
pub use fact::{Counted, Description, Fact, Half, Place, Relation, Truth};
pub use folder::{ANSWERS, CAPTIONS, FolderError, IMAGE_SIDE, Summary, write_folder};
pub use judged::{JudgedSentence, Statements, judged_sentences, statements};
pub use layout::{NotAScene, Object, Scene};
pub use patches::{PATCH_GROUPS, PatchTruth, Shown, patch_truth};
pub use practice::{Emphasis, Practice, practice_example};
pub use read::read_sentence;
pub use render::{picture, render};
pub use sentence::Sentence;
pub use shape::{Kind, Size};
pub use sign::{LETTERS, Sign, SignWord};
pub use split::{Split, UnknownSplit, is_held_out};
pub use vocabulary::vocabulary;
