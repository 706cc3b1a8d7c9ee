use std::collections::{BTreeMap, HashSet};
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

/// An adapter that items can ask for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// The name.
    pub name: String,
    /// The version that answers for it.
    pub version: String,
    /// Bytes of its weights and buffers.
    pub bytes: u64,
    /// Whether items that name no adapter use it.
    pub is_default: bool,
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
    /// Beside the default's own, by name.
    adapters: BTreeMap<String, Arc<LoadedModel>>,
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
            adapters: BTreeMap::new(),
            replaced: Vec::new(),
            groups: LruCache::unbounded(),
        };
        Self { state: Mutex::new(state) }
    }

    /// Makes a version the default. The one before stays for its groups, at most `keep` long.
    pub fn replace(&self, model: LoadedModel, keep: Duration) {
        self.replace_default(Arc::new(model), keep);
    }

    /// As [`Self::replace`]; gives the version before. The same version again changes nothing.
    pub(crate) fn replace_default(&self, model: Arc<LoadedModel>, keep: Duration) -> String {
        let mut state = self.lock();
        let before = state.default.card().version.clone();
        if before != model.card().version {
            let model = state.revived(model);
            let old = std::mem::replace(&mut state.default, model);
            state.retire(old, keep);
        }
        before
    }

    /// Offers an adapter under a name, in the place of one of that name, and makes it the default
    /// where that is wanted. The default's own name belongs to the default.
    pub(crate) fn add_adapter(
        &self,
        name: &str,
        model: Arc<LoadedModel>,
        make_default: bool,
        keep: Duration,
    ) -> Result<(), Failure> {
        let mut state = self.lock();
        if !make_default && state.default.card().adapter.as_deref() == Some(name) {
            return Err(in_use(
                "the default has this name; choose another, or make it the default",
            ));
        }
        let model = state.revived(model);
        if make_default && state.default.card().version != model.card().version {
            let old = std::mem::replace(&mut state.default, Arc::clone(&model));
            state.retire(old, keep);
        }
        if let Some(old) = state.adapters.insert(name.to_owned(), model) {
            state.retire(old, keep);
        }
        Ok(())
    }

    /// Offers an adapter no more; its groups may end, at most `keep` later.
    pub(crate) fn remove_adapter(&self, name: &str, keep: Duration) -> Result<(), Failure> {
        let mut state = self.lock();
        if state.default.card().adapter.as_deref() == Some(name) {
            let detail =
                "items without an adapter use it; load other weights or another default first";
            return Err(in_use(detail));
        }
        let old = state.adapters.remove(name).ok_or_else(|| {
            let detail = "no such adapter is loaded";
            Failure::new(ErrorClass::Unknown, Reason::ADAPTER_UNKNOWN, detail).at("name")
        })?;
        state.retire(old, keep);
        Ok(())
    }

    /// The adapters that items can name.
    pub fn adapters(&self) -> Vec<AdapterInfo> {
        let state = self.lock();
        let of = |name: &str, model: &LoadedModel, is_default| {
            let memory = model.engine.stats().memory;
            AdapterInfo {
                name: name.to_owned(),
                version: model.card().version.clone(),
                bytes: memory.weights + memory.workspace,
                is_default,
            }
        };
        let own = state.default.card().adapter.as_deref();
        let others = state.adapters.iter().filter(|(name, _)| own != Some(name.as_str()));
        let mut all: Vec<_> = own
            .map(|name| of(name, &state.default, true))
            .into_iter()
            .chain(others.map(|(name, model)| of(name, model, false)))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Lets go of what nothing needs; whether no version that was replaced is left.
    pub(crate) fn sweep(&self) -> bool {
        let mut state = self.lock();
        state.sweep();
        state.replaced.is_empty()
    }

    /// Ends the engines of all versions: what they have in finishes within `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        let models: Vec<Arc<LoadedModel>> = self.lock().models().map(Arc::clone).collect();
        futures::future::join_all(models.iter().map(|model| model.engine.shutdown(grace))).await;
    }

    /// The default version.
    pub fn default_model(&self) -> Arc<LoadedModel> {
        Arc::clone(&self.lock().default)
    }

    /// The version that answers for an adapter now.
    pub(crate) fn model_of(&self, adapter: Option<&str>) -> Option<Arc<LoadedModel>> {
        let model = self.lock().current(adapter);
        (adapter.is_none() || model.card().adapter.as_deref() == adapter).then_some(model)
    }

    /// The versions that answer, the default first.
    pub fn versions(&self) -> Vec<String> {
        let mut state = self.lock();
        state.sweep();
        state.models().map(|model| model.card().version.clone()).collect()
    }

    /// Every loaded version, the default first, each once.
    pub(crate) fn all(&self) -> Vec<Arc<LoadedModel>> {
        let mut state = self.lock();
        state.sweep();
        let mut seen = HashSet::new();
        let first = |model: &&Arc<LoadedModel>| seen.insert(model.card().version.clone());
        state.models().filter(first).map(Arc::clone).collect()
    }

    /// What each version did and holds, the default first. Of a version that is loaded under
    /// several names the first is told of: a version names what is measured.
    pub fn stats(&self) -> Vec<VersionStats> {
        self.all().iter().map(|model| model.stats()).collect()
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
        let asked = context.adapter.as_deref().filter(|name| !name.is_empty());
        let model = match required.map(str::to_owned).or(pinned.clone()) {
            None => state.current(asked),
            Some(version) => match state.loaded(&version, asked) {
                Some(model) => model,
                None if pinned.is_some() => return Err(gone()),
                None => return Err(mismatch(&state.default.card().version)),
            },
        };
        check_adapter(asked, &model, &state)?;
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
        let mut seen: Vec<*const LoadedModel> = Vec::new();
        std::iter::once(&self.default)
            .chain(self.adapters.values())
            .chain(self.replaced.iter().map(|(model, _)| model))
            .filter(move |model| {
                let new = !seen.contains(&Arc::as_ptr(model));
                seen.push(Arc::as_ptr(model));
                new
            })
    }

    /// The version that answers for an adapter now; the default where none of that name is there.
    fn current(&self, adapter: Option<&str>) -> Arc<LoadedModel> {
        let own = self.default.card().adapter.as_deref();
        let named = adapter.filter(|&name| own != Some(name));
        let found = named.and_then(|name| self.adapters.get(name));
        Arc::clone(found.unwrap_or(&self.default))
    }

    /// A version, with the adapter that was asked for if there is a choice.
    fn loaded(&self, version: &str, adapter: Option<&str>) -> Option<Arc<LoadedModel>> {
        let found = || self.models().filter(|model| model.card().version == version);
        let asked = |model: &&Arc<LoadedModel>| model.card().adapter.as_deref() == adapter;
        found().find(asked).or_else(|| found().next()).cloned()
    }

    /// The same version from among those that were replaced, if it is still there: with its caches,
    /// and so that no version is there twice.
    fn revived(&mut self, model: Arc<LoadedModel>) -> Arc<LoadedModel> {
        let wanted = model.card();
        let same = |old: &LoadedModel| {
            old.card().version == wanted.version && old.card().adapter == wanted.adapter
        };
        match self.replaced.iter().position(|(old, _)| same(old)) {
            Some(at) => self.replaced.swap_remove(at).0,
            None => model,
        }
    }

    /// Lets a version go once its groups have ended, at most `keep` from now. One that is still
    /// offered elsewhere stays.
    fn retire(&mut self, old: Arc<LoadedModel>, keep: Duration) {
        let offered = std::iter::once(&self.default).chain(self.adapters.values());
        if offered.into_iter().any(|model| Arc::ptr_eq(model, &old)) {
            return;
        }
        self.replaced.push((old, Instant::now() + keep));
        self.sweep();
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

fn check_adapter(asked: Option<&str>, model: &LoadedModel, state: &State) -> Result<(), Failure> {
    if asked.is_none() || model.card().adapter.as_deref() == asked {
        return Ok(());
    }
    let own = state.default.card().adapter.as_deref();
    let mut names: Vec<&str> =
        own.into_iter().chain(state.adapters.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    let there =
        if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) };
    let detail = format!("no such adapter is loaded; there is {there}");
    Err(Failure::new(ErrorClass::Unknown, Reason::ADAPTER_UNKNOWN, detail).at("context.adapter"))
}

fn in_use(detail: &str) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, Reason::ADAPTER_IN_USE, detail).at("name")
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
