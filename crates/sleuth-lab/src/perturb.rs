//! Perturbed captions and answers for real images, as TLDR section 4 makes them: a text-only model
//! edits a true text in one of eight taxonomies, or turns an answer into a wrong one; a second
//! question to it drops what is no error; what differs by words is labelled bad.

mod chat;
mod difference;
mod folder;
mod journal;
mod prompts;
mod task;

pub use chat::{Perturber, Settings};
pub use difference::changed_words;
pub use folder::{PerturbError, Plan, Summary, perturb_folder};
pub use task::{Dropped, Edit, Outcome};
