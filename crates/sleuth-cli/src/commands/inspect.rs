use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use candle_core::Device;
use serde::Serialize;
use sleuth_models::checkpoint::{Adapter, Checkpoint};
use sleuth_models::paligemma::PaliGemmaConfig;
use sleuth_models::{LoadOptions, RewardHead, RewardPaliGemma, RewardSettings};

use crate::arguments::{Format, InspectArguments, ModelArguments};
use crate::compose;
use crate::output::{self, Table};

/// A fact or a fault, a line each.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    is: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    wrong: bool,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

pub(super) fn run(arguments: &InspectArguments) -> Result<ExitCode> {
    let folder = compose::model_folder(&arguments.model)?;
    let findings = look(&folder, &arguments.model)?;
    let wrong = findings.0.iter().filter(|f| f.wrong).count();
    let mut out = io::stdout().lock();
    if arguments.format == Format::Json {
        output::json_line(&mut out, &findings.0)?;
    } else {
        let mut table = Table::new(&["", folder.display().to_string().as_str()]);
        for finding in &findings.0 {
            let mark = if finding.wrong { "WRONG " } else { "" };
            table.row(vec![finding.what.to_owned(), format!("{mark}{}", finding.is)]);
        }
        write!(out, "{table}")?;
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Goes on after a fault, so that one run names them all.
fn look(folder: &Path, arguments: &ModelArguments) -> Result<Findings> {
    let options = compose::load_options(arguments, folder)?;
    let mut findings = Findings::default();
    let config = findings.take("config.json", PaliGemmaConfig::from_folder(folder));
    if let Some(config) = &config {
        findings.shape(config);
        if let Some(preparer) = findings.take("tokenizer and preprocessor", compose::preparer(folder, config)) {
            let tokens = preparer.tokenizer().vocab_size();
            let (h, w) = (preparer.preprocessor().height(), preparer.preprocessor().width());
            findings.fact("tokenizer", format!("{tokens} tokens"));
            findings.fact("preprocessor", format!("{h}x{w} px"));
        }
    }
    if let Some(settings) = findings.take("reward_config.json", RewardSettings::from_folder(folder)) {
        findings.fact("suffix attention", format!("{:?}", settings.suffix_attention).to_lowercase());
        findings.fact("threshold", settings.threshold.to_string());
        findings.fact("prompt", format!("{:?}", settings.prompt));
    }
    if let Some(checkpoint) = findings.take("weights", Checkpoint::open(folder)) {
        findings.weights(&checkpoint);
    }
    findings.adapter_and_head(folder, &options, config.as_ref());
    // The load itself finds what is left: missing tensors, wrong shapes, values not finite.
    if !findings.0.iter().any(|f| f.wrong)
        && let Some(model) = findings.take("load", RewardPaliGemma::open(folder, &options, &Device::Cpu))
    {
        findings.fact("version", model.version().to_owned());
    }
    Ok(findings)
}

// === impl Findings ===

impl Findings {
    fn fact(&mut self, what: &'static str, is: String) {
        self.0.push(Finding { what, is, wrong: false });
    }

    /// The value, or a line that says what is wrong.
    fn take<T, E: Into<anyhow::Error>>(&mut self, what: &'static str, found: Result<T, E>) -> Option<T> {
        match found {
            Ok(value) => Some(value),
            Err(error) => {
                let error: anyhow::Error = error.into();
                let is = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
                self.0.push(Finding { what, is, wrong: true });
                None
            }
        }
    }

    fn shape(&mut self, config: &PaliGemmaConfig) {
        let (v, t) = (&config.vision_config, &config.text_config);
        self.fact("architecture", PaliGemmaConfig::ARCHITECTURE.to_owned());
        self.fact(
            "vision",
            format!(
                "{} layers x {}, {} heads, {} px, patch {}, {} image tokens",
                v.num_hidden_layers, v.hidden_size, v.num_attention_heads, v.image_size, v.patch_size, v.image_tokens()
            ),
        );
        self.fact(
            "decoder",
            format!(
                "{} layers x {}, MLP {}, {} heads of {}, {} KV heads, {} rows of vocabulary",
                t.num_hidden_layers, t.hidden_size, t.intermediate_size, t.num_attention_heads, t.head_dim,
                t.num_key_value_heads, t.vocab_size
            ),
        );
        let kv = 2 * t.num_hidden_layers * t.num_key_value_heads * t.head_dim * 4;
        self.fact("K/V", format!("{kv} bytes per token (f32)"));
    }

    fn weights(&mut self, checkpoint: &Checkpoint) {
        let tensors = checkpoint.tensors();
        let count: usize = tensors.iter().map(|(_, _, shape)| shape.iter().product::<usize>()).sum();
        let mut types: Vec<&str> = tensors.iter().map(|(_, dtype, _)| dtype.as_str()).collect();
        types.sort_unstable();
        types.dedup();
        let files = checkpoint.files().len();
        self.fact("weights", format!("{count} parameters, {} tensors, {files} files, {}", tensors.len(), types.join(" ")));
        self.fact("memory", format!("{:.1} MiB of weights in f32", (count * 4) as f64 / f64::from(1 << 20)));
    }

    fn adapter_and_head(&mut self, folder: &Path, options: &LoadOptions, config: Option<&PaliGemmaConfig>) {
        let adapter = match &options.adapter {
            None => {
                self.fact("adapter", "none".to_owned());
                None
            }
            Some(path) => self.take("adapter", Adapter::open(path)),
        };
        if let Some(adapter) = &adapter {
            let modules = adapter.modules().count();
            self.fact("adapter", format!("{}, rank {} on {modules} modules, tau {}", adapter.name(), adapter.rank(), options.tau));
        }
        let Some(config) = config else { return };
        let own = adapter.as_ref().is_some_and(|a| a.saved("score.weight").is_some());
        let head = RewardHead::open(folder, adapter.as_ref(), config.text_config.hidden_size, &Device::Cpu);
        if self.take("head", head).is_some() {
            let place = if own { "in the adapter" } else { RewardHead::FILE };
            self.fact("head", format!("linear, {} to 1, {place}", config.text_config.hidden_size));
        }
    }
}
