use std::fs;
use std::io::{self, Cursor, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures::StreamExt;
use image::{ImageFormat, Rgb, RgbImage};
use sleuth_core::{ScoreRequest, Scored};
use sleuth_lab::data::{Record, Records};
use sleuth_lab::eval::{Evaluation, Report};
use sleuth_service::{AdmissionSettings, Caller, Scorer, ServiceSettings};

use super::runtime;
use crate::arguments::{EvalArguments, Format};
use crate::compose;
use crate::output::{self, Table};

const IN_FLIGHT: usize = 64;
/// The blank picture: mid grey, which the preprocessor turns into zeros.
const GREY: Rgb<u8> = Rgb([128; 3]);

pub(super) fn run(arguments: &EvalArguments) -> Result<ExitCode> {
    let total = Records::open(&arguments.data)?.count() as u64;
    let records = Records::open(&arguments.data)?;
    let blank = arguments.blank_images.then(blank_picture).transpose()?;
    let bar = output::progress(Some(total), "scored");
    let report = runtime()?.block_on(async {
        // A folder is no crowd: its records wait for each other.
        let admission = AdmissionSettings { max_wait: Duration::MAX, ..Default::default() };
        let settings = ServiceSettings { admission, ..ServiceSettings::default() };
        let composed = compose::start(&arguments.model, arguments.engine, settings).await?;
        let service = &composed.service;
        let mut evaluation = Evaluation::new(service.model().threshold);
        let scored = futures::stream::iter(records)
            .map(|record| {
                score(service, &arguments.data, blank.as_ref(), record.map_err(Into::into))
            })
            .buffered(IN_FLIGHT);
        let mut scored = std::pin::pin!(scored);
        while let Some(scored) = scored.next().await {
            let (record, scored) = scored?;
            evaluation.add(&record.response, &scored.tokens, &record.labels);
            bar.inc(1);
        }
        anyhow::Ok(evaluation.report())
    })?;
    bar.finish_and_clear();
    print(&report, arguments.format)?;
    Ok(ExitCode::SUCCESS)
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

fn print(report: &Report, format: Format) -> Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        return output::json_line(&mut out, report);
    }
    let percent =
        |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{:.1}", 100.0 * x));
    let mut table = Table::new(&["measure", "%"]);
    for (name, value) in [
        ("token accuracy", report.token_accuracy),
        ("sentence accuracy", report.sentence_accuracy),
        ("response accuracy", report.response_accuracy),
        ("  of clean responses", report.clean_response_accuracy),
        ("mAP (neg)", report.map_neg),
        ("mAP (pos)", report.map_pos),
        ("mAP (neg), per response", report.map_neg_per_response),
    ] {
        table.row(vec![name.to_owned(), percent(value)]);
    }
    for (name, taxonomy) in &report.by_taxonomy {
        table.row(vec![
            format!("  {name} ({})", taxonomy.responses),
            percent(Some(taxonomy.response_accuracy)),
        ]);
    }
    writeln!(out, "{} responses\n{table}", report.responses)?;
    Ok(())
}
