//! What the backbone itself makes up when it describes, by how much of the adapter is merged into it
//! (TLDR section 5.4).

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;
use serde_json::json;
use sleuth_engine::{
    Generate, Generator, GeneratorSettings, LanguageSettings, LanguageWorker, Sampling, Stop,
};
use sleuth_input::Preparer;
use sleuth_lab::correction::{CaptionTally, Judge};
use sleuth_lab::data::{Record, Records};
use sleuth_lab::scenes::CAPTION_PROMPT;
use sleuth_models::{BackboneFolder, LoadOptions};

use super::runtime;
use crate::arguments::{EvalArguments, Format};
use crate::output::{self, Table};
use crate::{compose, environment};

/// Longest caption, in tokens.
const LONGEST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(95);
/// Scenes at a time.
const AT_A_TIME: usize = 8;
const SEED: u64 = 1;

/// A backbone that writes.
struct Writer {
    generator: Generator,
    preparer: Preparer,
    spellings: Vec<Option<Vec<u8>>>,
    captions: NonZeroUsize,
}

pub(super) fn run(arguments: &EvalArguments, data: &Path) -> Result<()> {
    let (judge, scenes) = scenes(data)?;
    let total = (scenes.len() * arguments.backbone.len()) as u64;
    let bar = output::progress(Some(total), "described");
    let rows = runtime()?.block_on(async {
        let mut rows = Vec::new();
        for &tau in &arguments.backbone {
            let writer = Writer::open(arguments, tau).await?;
            rows.push((tau, writer.describe(data, &judge, &scenes, &bar).await?));
            writer.generator.shutdown(Duration::from_secs(1)).await;
        }
        anyhow::Ok(rows)
    })?;
    bar.finish_and_clear();
    print(&rows, arguments.format)
}

/// What is true, and a record for each scene.
fn scenes(data: &Path) -> Result<(Judge, Vec<Record>)> {
    let (mut judge, mut seen, mut scenes) = (Judge::new(), HashSet::new(), Vec::new());
    for record in Records::open(data)? {
        let record = record?;
        judge.learn(&record);
        if record.prompt == CAPTION_PROMPT && seen.insert(record.image.clone()) {
            scenes.push(record);
        }
    }
    Ok((judge, scenes))
}

// === impl Writer ===

impl Writer {
    async fn open(arguments: &EvalArguments, tau: f64) -> Result<Self> {
        let folder = compose::model_folder(&arguments.model)?;
        let options = LoadOptions { tau, ..compose::load_options(&arguments.model, &folder)? };
        let opened = BackboneFolder::open(&folder, &options)?;
        let preparer = compose::preparer(&folder, &opened.config)?;
        let spellings = preparer.tokenizer().spellings();
        let threads = arguments.engine.threads.unwrap_or_else(environment::cores);
        let layout = LanguageSettings {
            kv: arguments.engine.kv.into(),
            ..LanguageSettings::with_threads(threads)
        }
        .fitting(&opened);
        let load = move || LanguageWorker::load(&opened, layout, u64::MAX);
        let generator = Generator::start(load, GeneratorSettings::default()).await?;
        Ok(Self { generator, preparer, spellings, captions: arguments.captions })
    }

    async fn describe(
        &self,
        data: &Path,
        judge: &Judge,
        scenes: &[Record],
        bar: &ProgressBar,
    ) -> Result<CaptionTally> {
        let captions = futures::stream::iter(scenes).map(|scene| async move {
            let captions = self.captions_of(data, scene).await?;
            bar.inc(1);
            anyhow::Ok((scene, captions))
        });
        let all: Vec<_> = captions.buffered(AT_A_TIME).try_collect().await?;
        let mut tally = CaptionTally::default();
        for (scene, captions) in all {
            for caption in captions {
                tally.add(judge.said(scene, &caption)?);
            }
        }
        Ok(tally)
    }

    async fn captions_of(&self, data: &Path, scene: &Record) -> Result<Vec<String>> {
        let path = data.join(&scene.image);
        let image = fs::read(&path).with_context(|| path.display().to_string())?;
        let tokenizer = self.preparer.tokenizer();
        let prepared = self.preparer.prepare_image(&image)?;
        let request = Generate {
            pixels: prepared.pixels,
            image_key: self.preparer.image_key(blake3::hash(&image).as_bytes()),
            prompt: tokenizer.encode_prompt(&scene.prompt)?,
            given: Arc::from([]),
            candidates: self.captions,
            max_tokens: LONGEST,
            sampling: Sampling::Random { temperature: 1.0, top_p: None, top_k: None, seed: SEED },
            stop: Stop { tokens: Arc::clone(tokenizer.end_ids()), ..Stop::default() },
        };
        let written = self.generator.generate(request, None).await.map_err(|e| anyhow!(e))?;
        Ok(written.iter().map(|candidate| self.text(&candidate.tokens)).collect())
    }

    fn text(&self, tokens: &[u32]) -> String {
        let bytes = tokens.iter().filter_map(|&id| self.spellings.get(id as usize)?.as_deref());
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned()
    }
}

fn print(rows: &[(f64, CaptionTally)], format: Format) -> Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(tau, tally)| {
                json!({
                    "tau": tau,
                    "statement_rate": tally.statement_rate(),
                    "caption_rate": tally.caption_rate(),
                    "counts": tally,
                })
            })
            .collect();
        return output::json_line(&mut out, &rows);
    }
    let mut table =
        Table::new(&["tau", "captions", "with errors", "statements", "false", "unreadable"]);
    for (tau, tally) in rows {
        table.row(vec![
            tau.to_string(),
            tally.captions.to_string(),
            format!("{:.1} %", 100.0 * tally.caption_rate()),
            tally.statements.to_string(),
            format!("{:.1} %", 100.0 * tally.statement_rate()),
            tally.unreadable.to_string(),
        ]);
    }
    Ok(write!(out, "{table}")?)
}
