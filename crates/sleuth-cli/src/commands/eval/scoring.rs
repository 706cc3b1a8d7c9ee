use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures::StreamExt;
use image::{ImageFormat, Rgb, RgbImage};
use indicatif::ProgressBar;
use sleuth_core::{ScoreRequest, Scored};
use sleuth_lab::data::{Record, Records};
use sleuth_lab::eval::Evaluation;
use sleuth_server::Baseline;
use sleuth_service::{AdmissionSettings, Caller, Scorer, ServiceSettings};

use crate::arguments::{EngineArguments, ModelArguments};
use crate::compose;

const IN_FLIGHT: usize = 64;
/// The blank picture: mid grey, which the preprocessor turns into zeros.
const GREY: Rgb<u8> = Rgb([128; 3]);

/// Whether the model is shown the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looking {
    Seeing,
    /// A blank picture stands for each.
    Blank,
}

/// A scored data folder.
pub(super) struct ScoredFolder {
    pub(super) evaluation: Evaluation,
    /// The model's own.
    pub(super) threshold: f32,
    /// How its rewards are distributed.
    pub(super) baseline: Baseline,
}

/// Scores every record of a folder.
pub(super) async fn folder(
    model: &ModelArguments,
    engine: EngineArguments,
    folder: &Path,
    looking: Looking,
    bar: &ProgressBar,
) -> Result<ScoredFolder> {
    let records = Records::open(folder)?;
    let blank = (looking == Looking::Blank).then(blank_picture).transpose()?;
    // A folder is no crowd: its records wait for each other.
    let admission = AdmissionSettings { max_wait: Duration::MAX, ..Default::default() };
    let settings = ServiceSettings { admission, ..ServiceSettings::default() };
    let service = &compose::start(model, engine, settings).await?;
    let threshold = service.model().threshold;
    let mut evaluation = Evaluation::new();
    let scored = futures::stream::iter(records)
        .map(|record| score(service, folder, blank.as_ref(), record.map_err(Into::into)))
        .buffered(IN_FLIGHT);
    let mut scored = std::pin::pin!(scored);
    while let Some(scored) = scored.next().await {
        let (record, scored) = scored?;
        evaluation.add(record, scored.tokens);
        bar.inc(1);
    }
    let versions = service.registry().stats();
    let version = versions.first().context("no version is loaded")?;
    let baseline =
        Baseline { version: version.card.version.clone(), rewards: version.rewards.all().clone() };
    Ok(ScoredFolder { evaluation, threshold, baseline })
}

/// A measurement with holes would flatter, so the first failure ends the command.
async fn score(
    service: &impl Scorer,
    folder: &Path,
    blank: Option<&Bytes>,
    record: Result<Record>,
) -> Result<(Record, Scored)> {
    let record = record?;
    let image = if let Some(blank) = blank {
        blank.clone()
    } else {
        let path = folder.join(&record.image);
        fs::read(&path).with_context(|| path.display().to_string())?.into()
    };
    let mut request = ScoreRequest::new(image, record.response.clone());
    request.context.prompt = Some(record.prompt.clone());
    let scored = service
        .score(&Caller::default(), request)
        .await
        .map_err(|e| anyhow!(e).context(format!("record `{}`", record.id)))?;
    Ok((record, scored))
}

fn blank_picture() -> Result<Bytes> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(64, 64, GREY).write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner().into())
}
