//! Puts a model folder, an engine and a service together.

mod caches;
mod device;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sleuth_chat::{ApiKey, Endpoint, Limits as ChatLimits};
use sleuth_core::{ModelCard, SelfTest};
use sleuth_engine::{
    Engine, EngineSettings, Generator, GeneratorSettings, LanguageSettings, LanguageWorker,
    SimulatedDevice, SimulatedModel,
};
use sleuth_input::{ImageLimits, Preparer, TextLimits};
use sleuth_models::cpu::KvType;
use sleuth_models::{
    BackboneFolder, LoadError, LoadOptions, ModelConfig, RewardFolder, SuffixAttention,
    read_self_test,
};
use sleuth_service::{
    BuiltinCorrector, Corrector, Correctors, EndpointCorrector, EndpointSettings, LoadedModel,
    ScoreService, ServiceSettings, Swap, SwapSettings, Unproven,
};

use crate::arguments::{BuiltinArguments, EndpointArguments, EngineArguments, Kv, ModelArguments};
use crate::environment;
use crate::versions::Folders;

/// A model on its device threads, and what it must give.
pub(crate) struct Loaded {
    pub(crate) card: ModelCard,
    folder: PathBuf,
    preparer: Preparer,
    engine: Engine,
    test: Option<SelfTest>,
}

/// The model folder that the arguments name, or the one in `models/mini`.
pub(crate) fn model_folder(arguments: &ModelArguments) -> Result<PathBuf> {
    if let Some(folder) = &arguments.model {
        ensure!(folder.is_dir(), "--model: {} is no folder", folder.display());
        return Ok(folder.clone());
    }
    let found =
        environment::roots().into_iter().map(|r| r.join("models/mini")).find(|p| p.is_dir());
    found.context(
        "no models/mini near the working folder or the binary; name a model with --model DIR",
    )
}

/// What to load beside the base: the named adapter, else the folder's own.
pub(crate) fn load_options(arguments: &ModelArguments, folder: &Path) -> Result<LoadOptions> {
    ensure!(arguments.tau.is_finite(), "--tau must be a finite number");
    let own = folder.join("adapter");
    let adapter = match &arguments.adapter {
        Some(adapter) if !adapter.is_dir() => {
            bail!("--adapter: {} is no folder", adapter.display())
        }
        Some(adapter) => Some(adapter.clone()),
        None => Some(own).filter(|own| own.is_dir() && !arguments.no_adapter),
    };
    Ok(LoadOptions { adapter, tau: arguments.tau })
}

/// How long texts may be so that image, prompt and response fit the model's positions: a quarter
/// of what the image leaves is the prompt's.
pub(crate) fn text_limits(config: &ModelConfig) -> TextLimits {
    let defaults = TextLimits::default();
    let left = config.max_positions().saturating_sub(config.image_rows());
    let prompt = defaults.max_prompt_tokens.min(left / 4);
    TextLimits {
        max_prompt_tokens: prompt,
        max_response_tokens: defaults.max_response_tokens.min(left - prompt),
        ..defaults
    }
}

/// The folder's tokenizer and preprocessor, checked against its config.
pub(crate) fn preparer(folder: &Path, config: &ModelConfig) -> Result<Preparer> {
    let preparer = Preparer::from_folder(folder, ImageLimits::default(), text_limits(config))?;
    let (tokens, rows) = (preparer.tokenizer().vocab_size() as usize, config.embedding_rows());
    ensure!(tokens <= rows, "tokenizer.json has {tokens} tokens, the embedding {rows} rows");
    let side = config.image_side();
    let (height, width) = (preparer.preprocessor().height(), preparer.preprocessor().width());
    ensure!(
        (height as usize, width as usize) == (side, side),
        "preprocessor_config.json resizes to {height}x{width}, config.json asks for {side}x{side}"
    );
    let tiles = preparer.preprocessor().tiles().map(|most| most as usize);
    ensure!(
        tiles == config.tiles(),
        "preprocessor_config.json makes {}, config.json asks for {}: `image_processor_type` and \
         `max_image_tiles` must be those of the model",
        in_tiles(tiles),
        in_tiles(config.tiles())
    );
    if let ModelConfig::Mllama(config) = config {
        let (found, wanted) = (preparer.tokenizer().image_id(), config.image_token_index);
        ensure!(
            found == wanted,
            "`<|image|>` is {found} in tokenizer.json, `image_token_index` is {wanted} in config.json"
        );
    }
    Ok(preparer)
}

fn in_tiles(most: Option<usize>) -> String {
    most.map_or_else(|| "one image".to_owned(), |most| format!("up to {most} tiles"))
}

/// Loads the model on its device threads and starts the service over it.
pub(crate) async fn start(
    arguments: &ModelArguments,
    engine: EngineArguments,
    settings: ServiceSettings,
) -> Result<ScoreService> {
    let Loaded { card, preparer, engine, .. } = load(arguments, engine).await?;
    Ok(service(card, preparer, engine, settings))
}

/// As [`start`], for a server: golden rewards must hold, and versions can be exchanged.
pub(crate) async fn start_serving(
    arguments: &ModelArguments,
    engine: EngineArguments,
    settings: ServiceSettings,
    swap: SwapSettings,
) -> Result<(ScoreService, Swap)> {
    let loaded = load(arguments, engine).await?;
    let folder = loaded.folder.clone();
    let model = loaded.unproven().prove(swap.proof).await.context("this model must not serve")?;
    let folders = Folders::new(engine, arguments.tau, &model.card().version, folder);
    let service = ScoreService::new(model, settings);
    let swap = Swap::new(&service, folders, swap);
    Ok((service, swap))
}

/// Loads the model on its device threads.
pub(crate) async fn load(arguments: &ModelArguments, engine: EngineArguments) -> Result<Loaded> {
    let (folder, opened, mut card, preparer) = open(arguments, engine)?;
    let test = self_test(arguments, &folder, engine.kv)?;
    let sizes = ModelConfig::from_folder(&folder)?.sizes(engine.kv.into());
    let pool = caches::pool(engine, &sizes);
    let started = device::start(opened, &mut card.version, engine, pool).await;
    let engine = started.with_context(|| format!("load {}", folder.display()))?;
    Ok(Loaded { card, folder, preparer, engine, test })
}

/// The golden rewards of what is loaded: the adapter's, or the folder's where there is no adapter.
/// They are for whole deltas only.
fn self_test(arguments: &ModelArguments, folder: &Path, kv: Kv) -> Result<Option<SelfTest>> {
    let options = load_options(arguments, folder)?;
    if options.adapter.is_some() && (options.tau - 1.0).abs() > f64::EPSILON {
        return Ok(None);
    }
    let mut test = read_self_test(options.adapter.as_deref().unwrap_or(folder))?;
    if let (Some(test), Kv::F16) = (&mut test, kv) {
        test.tolerance.absolute = test.tolerance.absolute.max(F16_TOLERANCE);
    }
    Ok(test)
}

/// How far logits may be off with keys and values in f16, as docs/performance.md has it.
const F16_TOLERANCE: f32 = 2e-2;

/// As [`start`], with a device that takes time and no CPU, and gives rewards that mean nothing.
pub(crate) async fn start_simulated(
    arguments: &ModelArguments,
    engine: EngineArguments,
    device: (f64, f64),
    settings: ServiceSettings,
) -> Result<ScoreService> {
    let (folder, _, mut card, preparer) = open(arguments, engine)?;
    let config = ModelConfig::from_folder(&folder)?;
    card.version = format!("simulated-{}", card.version);
    let (tokens_per_second, batch_seconds) = device;
    let device = SimulatedDevice {
        batch_time: Duration::try_from_secs_f64(batch_seconds).context("--simulated-device")?,
        tokens_per_second,
        image_tokens: config.image_rows(),
        prefixes: SIMULATED_PREFIXES,
    };
    let workers = NonZeroUsize::new(engine.workers).unwrap_or(NonZeroUsize::MIN);
    let load = move || Ok::<_, LoadError>(SimulatedModel::pool(workers, device));
    let engine = Engine::start(load, EngineSettings::default()).await?;
    Ok(service(card, preparer, engine, settings))
}

/// Who can propose repairs: whoever is set up, and the backbone in `memory` MiB, where some are given.
pub(crate) async fn correctors(
    model: &ModelArguments,
    engine: EngineArguments,
    endpoint: &EndpointArguments,
    builtin: BuiltinArguments,
    memory: Option<u64>,
) -> Result<Correctors> {
    let endpoint = endpoint_corrector(endpoint)?;
    let builtin: Option<Arc<dyn Corrector>> = match memory {
        Some(memory) => Some(Arc::new(builtin_corrector(model, engine, builtin, memory).await?)),
        None => None,
    };
    Ok(Correctors { builtin, endpoint })
}

/// The folder's backbone with the adapter's deltas times the corrector's τ, on threads of its own.
async fn builtin_corrector(
    model: &ModelArguments,
    engine: EngineArguments,
    builtin: BuiltinArguments,
    memory: u64,
) -> Result<BuiltinCorrector> {
    ensure!(builtin.corrector_tau.is_finite(), "--corrector-tau must be a finite number");
    let folder = model_folder(model)?;
    let options = LoadOptions { tau: builtin.corrector_tau, ..load_options(model, &folder)? };
    let opened = BackboneFolder::open(&folder, &options)?;
    let preparer = Arc::new(preparer(&folder, &opened.config)?);
    let threads = engine.threads.unwrap_or_else(environment::cores);
    let layout =
        LanguageSettings { kv: engine.kv.into(), ..LanguageSettings::with_threads(threads) }
            .fitting(&opened);
    let load = move || LanguageWorker::load(&opened, layout, memory.saturating_mul(1 << 20));
    let generator = Generator::start(load, GeneratorSettings::default())
        .await
        .context("the corrector `builtin` (see --corrector-memory)")?;
    Ok(BuiltinCorrector::new(generator, preparer))
}

fn endpoint_corrector(arguments: &EndpointArguments) -> Result<Option<Arc<dyn Corrector>>> {
    let Some(url) = &arguments.endpoint_url else { return Ok(None) };
    let model = arguments.endpoint_model.as_deref().context("--endpoint-model is missing")?;
    let key = match &arguments.endpoint_key_file {
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("--endpoint-key-file {}", path.display()))?;
            let key = ApiKey::new(&text);
            ensure!(key.is_some(), "--endpoint-key-file {} is empty", path.display());
            key
        }
        None => environment::endpoint_key().as_deref().and_then(ApiKey::new),
    };
    let endpoint = Endpoint::new(url, model, key).context("--endpoint-url")?;
    let defaults = EndpointSettings::default();
    let settings = EndpointSettings {
        allowed_hosts: arguments.endpoint_allow.clone(),
        with_image: arguments.endpoint_image,
        concurrency: arguments.endpoint_concurrency,
        requests_per_minute: arguments.endpoint_requests_per_minute,
        limits: ChatLimits {
            timeout: Duration::from_secs(arguments.endpoint_timeout),
            attempts: arguments.endpoint_attempts,
            ..defaults.limits
        },
        ..defaults
    };
    let corrector = EndpointCorrector::new(endpoint, settings)
        .context("--endpoint-url (allow another host with --endpoint-allow)")?;
    Ok(Some(Arc::new(corrector)))
}

/// Prefixes that a simulated device holds.
const SIMULATED_PREFIXES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

fn open(
    arguments: &ModelArguments,
    engine: EngineArguments,
) -> Result<(PathBuf, RewardFolder, ModelCard, Preparer)> {
    let folder = model_folder(arguments)?;
    let options = load_options(arguments, &folder)?;
    let config = ModelConfig::from_folder(&folder)?;
    let preparer = preparer(&folder, &config)?;
    let limits = text_limits(&config);
    let opened = RewardFolder::open(&folder, &options)?;
    let card = describe(&folder, &opened, engine.kv.into(), &limits);
    Ok((folder, opened, card, preparer))
}

// === impl Loaded ===

impl Loaded {
    /// What has yet to show that its rewards are right.
    pub(crate) fn unproven(self) -> Unproven {
        let Self { card, preparer, engine, test, .. } = self;
        Unproven::new(LoadedModel::new(card, preparer, engine), test)
    }
}

fn service(
    card: ModelCard,
    preparer: Preparer,
    engine: Engine,
    settings: ServiceSettings,
) -> ScoreService {
    ScoreService::new(LoadedModel::new(card, preparer, engine), settings)
}

fn describe(folder: &Path, model: &RewardFolder, kv: KvType, limits: &TextLimits) -> ModelCard {
    let settings = model.settings();
    ModelCard {
        name: name_of(folder),
        version: model.version(kv),
        architecture: model.architecture().to_owned(),
        adapter: model.adapter().map(str::to_owned),
        prompt: settings.prompt.clone(),
        threshold: settings.threshold,
        causal_suffix: settings.suffix_attention == SuffixAttention::Causal,
        max_prompt_tokens: limits.max_prompt_tokens as u32,
        max_response_tokens: limits.max_response_tokens as u32,
    }
}

/// The folder's own name, also where it is given as `.`.
pub(crate) fn name_of(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    whole.file_name().map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
}
