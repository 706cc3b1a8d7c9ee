//! The science of Sleuth: drawn scenes, labelled data, training and evaluation.

pub mod bench;
pub mod chart;
pub mod correction;
pub mod data;
pub mod eval;
pub mod load;
pub mod perturb;
pub mod scenes;
pub mod train;
