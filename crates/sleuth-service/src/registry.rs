use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use sleuth_core::{Context, ErrorClass, Failure, Reason};
use tokio::time::Instant;

use crate::{Caller, LoadedModel, VersionStats};

/// The versions that are loaded, and which of them scores which group.
///
/// Invariants
/// - One version scores a group, from its first item on.
/// - A version that was replaced stays until its groups have ended or its time is over; then what
///   is left of them ends as `version_changed`.
#[derive(Debug)]
pub struct Registry {
    state: Mutex<State>,
}

/// How long groups hold a version, and how many are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// Groups that are remembered; beyond, the one that was not asked for longest is forgotten.
    pub max_groups: usize,
    /// A group that was not asked for so long has ended.
    pub idle: Duration,
}

#[derive(Debug)]
struct State {
    settings: GroupSettings,
    default: Arc<LoadedModel>,
    /// Those that were replaced, and when their time is over.
    replaced: Vec<(Arc<LoadedModel>, Instant)>,
    groups: LruCache<GroupName, Pin>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GroupName {
    tenant: Arc<str>,
    id: String,
}

#[derive(Debug)]
struct Pin {
    version: String,
    used: Instant,
    /// Members that have their rewards, of those that were announced.
    scored: u32,
    size: Option<u32>,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new(default: LoadedModel, settings: GroupSettings) -> Self {
        let state = State {
            settings,
            default: Arc::new(default),
            replaced: Vec::new(),
            groups: LruCache::unbounded(),
        };
        Self { state: Mutex::new(state) }
    }

    /// Makes a version the default. The one before stays for its groups, at most `keep` long.
    pub fn replace(&self, model: LoadedModel, keep: Duration) {
        let mut state = self.lock();
        let old = std::mem::replace(&mut state.default, Arc::new(model));
        state.replaced.push((old, Instant::now() + keep));
        state.sweep();
    }

    /// The default version.
    pub fn default_model(&self) -> Arc<LoadedModel> {
        Arc::clone(&self.lock().default)
    }

    /// The versions that answer, the default first.
    pub fn versions(&self) -> Vec<String> {
        let mut state = self.lock();
        state.sweep();
        state.models().map(|model| model.card().version.clone()).collect()
    }

    /// What each version did and holds, the default first.
    pub fn stats(&self) -> Vec<VersionStats> {
        let models: Vec<Arc<LoadedModel>> = self.lock().models().map(Arc::clone).collect();
        models.iter().map(|model| model.stats()).collect()
    }

    /// The version that scores an item, and from now on its group.
    pub(crate) fn resolve<B>(
        &self,
        caller: &Caller,
        context: &Context<B>,
    ) -> Result<Arc<LoadedModel>, Failure> {
        let mut state = self.lock();
        state.sweep();
        let name = context
            .group
            .as_ref()
            .map(|group| GroupName { tenant: Arc::clone(&caller.tenant), id: group.id.clone() });
        let pinned = name.as_ref().and_then(|name| state.pinned(name));
        let required = context.required_version.as_deref().filter(|v| !v.is_empty());
        if let (Some(pinned), Some(required)) = (&pinned, required)
            && pinned != required
        {
            return Err(mismatch(pinned));
        }
        let model = match required.map(str::to_owned).or(pinned.clone()) {
            None => Arc::clone(&state.default),
            Some(version) => match state.loaded(&version) {
                Some(model) => model,
                None if pinned.is_some() => return Err(gone()),
                None => return Err(mismatch(&state.default.card().version)),
            },
        };
        check_adapter(context.adapter.as_deref(), &model)?;
        if let Some(name) = name {
            let size = context.group.as_ref().and_then(|group| group.size);
            state.pin(name, &model.card().version, size);
        }
        Ok(model)
    }

    /// Notes that a member of a group has its rewards.
    pub(crate) fn scored<B>(&self, caller: &Caller, context: &Context<B>) {
        let Some(group) = &context.group else { return };
        let name = GroupName { tenant: Arc::clone(&caller.tenant), id: group.id.clone() };
        let mut state = self.lock();
        let Some(pin) = state.groups.peek_mut(&name) else { return };
        // The group keeps its version: a member that is asked for again must not get another one.
        pin.scored = pin.scored.saturating_add(1);
    }

    /// Nothing panics while the lock is held, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn models(&self) -> impl Iterator<Item = &Arc<LoadedModel>> {
        std::iter::once(&self.default).chain(self.replaced.iter().map(|(model, _)| model))
    }

    fn loaded(&self, version: &str) -> Option<Arc<LoadedModel>> {
        self.models().find(|model| model.card().version == version).cloned()
    }

    fn pinned(&mut self, name: &GroupName) -> Option<String> {
        let pin = self.groups.get_mut(name)?;
        pin.used = Instant::now();
        Some(pin.version.clone())
    }

    fn pin(&mut self, name: GroupName, version: &str, size: Option<u32>) {
        if self.groups.contains(&name) {
            return;
        }
        let used = Instant::now();
        self.groups.put(name, Pin { version: version.to_owned(), used, scored: 0, size });
        while self.groups.len() > self.settings.max_groups {
            self.groups.pop_lru();
        }
    }

    /// Forgets groups that have ended, and lets go of versions that nobody needs any more.
    fn sweep(&mut self) {
        let now = Instant::now();
        while let Some((_, pin)) = self.groups.peek_lru()
            && now.saturating_duration_since(pin.used) > self.settings.idle
        {
            self.groups.pop_lru();
        }
        let groups = &self.groups;
        self.replaced.retain(|(model, until)| {
            let needed = || groups.iter().any(|(_, pin)| pin.needs(&model.card().version));
            *until > now && needed()
        });
    }
}

// === impl Pin ===

impl Pin {
    fn needs(&self, version: &str) -> bool {
        self.version == version && self.size.is_none_or(|size| self.scored < size)
    }
}

fn check_adapter(asked: Option<&str>, model: &LoadedModel) -> Result<(), Failure> {
    let loaded = model.card().adapter.as_deref();
    if asked.is_none_or(|name| name.is_empty() || loaded == Some(name)) {
        return Ok(());
    }
    let detail = match loaded {
        Some(loaded) => format!("no such adapter is loaded; there is `{loaded}`"),
        None => "no such adapter is loaded; there is none".to_owned(),
    };
    Err(Failure::new(ErrorClass::Unknown, Reason::ADAPTER_UNKNOWN, detail).at("context.adapter"))
}

fn mismatch(version: &str) -> Failure {
    let detail = format!("version {version} answers here");
    Failure::new(ErrorClass::VersionChanged, Reason::VERSION_MISMATCH, detail)
        .at("context.required_version")
}

fn gone() -> Failure {
    let detail = "the version that scored this group is no longer loaded; score the group anew \
                  under another id";
    Failure::new(ErrorClass::VersionChanged, Reason::GROUP_VERSION_GONE, detail)
        .at("context.group.id")
}

// === impl GroupSettings ===

impl Default for GroupSettings {
    /// 65,536 groups, ten minutes.
    fn default() -> Self {
        Self { max_groups: 1 << 16, idle: Duration::from_mins(10) }
    }
}
