//! Workers on several devices, which are told apart here by a number: what lies on another one must
//! be brought before it is read.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use sleuth_models::LoadError;
use sleuth_models::backbone::{Done, PassCost, Prefilled};

use super::*;

/// Arithmetic that tells whatever it depends on apart.
#[derive(Debug)]
struct Card {
    number: usize,
    /// What the next passes do, in turn; nothing is a pass that goes well.
    script: Mutex<VecDeque<Fault>>,
    /// Whether copies from this card fail.
    broken: Arc<Mutex<Vec<usize>>>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Memory,
    Lost,
}

#[derive(Clone, Debug, PartialEq)]
struct Sight {
    card: usize,
    shade: f32,
}

#[derive(Clone, Debug, PartialEq)]
struct Filled {
    card: usize,
    value: f32,
    rows: usize,
}

#[derive(Debug)]
struct Kept {
    card: usize,
    prefix: Arc<Filled>,
    tokens: Vec<u32>,
}

const IMAGE_ROWS: usize = 3;

impl Held for Sight {
    fn bytes(&self) -> u64 {
        8
    }
}

impl Held for Filled {
    fn bytes(&self) -> u64 {
        8 * self.rows as u64
    }
}

impl Prefilled for Filled {
    fn rows(&self) -> usize {
        self.rows
    }
}

impl Held for Kept {
    fn bytes(&self) -> u64 {
        4 * self.tokens.len() as u64
    }
}

impl Continued<Filled> for Kept {
    fn prefix(&self) -> &Arc<Filled> {
        &self.prefix
    }

    fn rows(&self) -> usize {
        self.tokens.len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Card {
    /// Fails what is read on the wrong card.
    fn on(&self, card: usize) -> Result<(), PassError> {
        if card == self.number {
            return Ok(());
        }
        let name = format!("card {} reads what lies on card {card}", self.number);
        Err(PassError::Failed(LoadError::MissingTensor { name }))
    }

    fn copy_from(&self, card: usize) -> Result<(), PassError> {
        if card != self.number && lock(&self.broken).contains(&card) {
            return Err(PassError::DeviceLost(format!("card {card}")));
        }
        Ok(())
    }
}

impl Backbone for Card {
    type Features = Sight;
    type Prefix = Filled;
    type Suffix = Kept;
    type Space = ();

    fn facts(&self) -> BackboneFacts {
        BackboneFacts {
            device: "card",
            image_tokens: IMAGE_ROWS,
            attention: SuffixAttention::Causal,
            batch_invariant: false,
            kv_page_rows: 1,
            kv_page_bytes: 8,
            layers: 1,
            weight_bytes: 100,
        }
    }

    fn see(&self, (): &mut (), images: &[&Pixels]) -> Result<Vec<Sight>, PassError> {
        let see = |pixels: &&Pixels| Sight { card: self.number, shade: pixels.values()[0] };
        Ok(images.iter().map(see).collect())
    }

    fn score(
        &self,
        (): &mut (),
        work: Pass<'_, Sight, Filled, Kept>,
    ) -> Result<Done<Filled, Kept>, PassError> {
        match lock(&self.script).pop_front() {
            Some(Fault::Memory) => return Err(PassError::OutOfMemory),
            Some(Fault::Lost) => return Err(PassError::DeviceLost("scripted".to_owned())),
            None => {}
        }
        let mut prefixes = Vec::new();
        for NewPrefix { features, prompt } in &work.prefixes {
            self.on(features.card)?;
            let value = features.shade + prompt.iter().sum::<u32>() as f32;
            let rows = IMAGE_ROWS + prompt.len();
            prefixes.push(Arc::new(Filled { card: self.number, value, rows }));
        }
        let (mut logits, mut suffixes) = (Vec::new(), Vec::new());
        for suffix in work.suffixes {
            let own = suffix.tokens();
            let (prefix, before, goes_on) = match suffix {
                Suffix::Whole { prefix, .. } => (resolve(prefix, &prefixes), Vec::new(), false),
                Suffix::First { prefix, .. } => (resolve(prefix, &prefixes), Vec::new(), true),
                Suffix::Next { so_far, .. } => {
                    self.on(so_far.card)?;
                    (so_far.prefix, so_far.tokens, true)
                }
            };
            self.on(prefix.card)?;
            let tokens = [before.as_slice(), own].concat();
            logits.push(of(&prefix, &tokens)[before.len()..].to_vec());
            suffixes.push(goes_on.then_some(Kept { card: self.number, prefix, tokens }));
        }
        Ok(Done { logits, prefixes, suffixes })
    }

    fn score_full(
        &self,
        (): &mut (),
        _: &[(NewPrefix<'_, Sight>, &[u32])],
    ) -> Result<Vec<Vec<f32>>, PassError> {
        Ok(Vec::new())
    }

    fn bring_prefix(&self, held: &Arc<Filled>) -> Result<Arc<Filled>, PassError> {
        self.copy_from(held.card)?;
        Ok(Arc::new(Filled { card: self.number, ..(**held).clone() }))
    }

    fn bring_features(&self, held: &Arc<Sight>) -> Result<Arc<Sight>, PassError> {
        self.copy_from(held.card)?;
        Ok(Arc::new(Sight { card: self.number, ..(**held).clone() }))
    }

    fn can_read(&self, kept: &Kept) -> bool {
        kept.card == self.number
    }

    fn bring_suffix(&self, kept: Kept, prefix: Arc<Filled>) -> Result<Kept, PassError> {
        self.copy_from(kept.card)?;
        Ok(Kept { card: self.number, prefix, tokens: kept.tokens })
    }

    fn cost(&self, shape: &PassShape) -> PassCost {
        PassCost { linear: shape.rows() as f64, ..PassCost::default() }
    }

    fn take_times((): &mut ()) -> PassTimes {
        PassTimes::default()
    }

    fn space_bytes((): &()) -> u64 {
        0
    }
}

fn resolve(behind: Behind<'_, Filled>, new: &[Arc<Filled>]) -> Arc<Filled> {
    match behind {
        Behind::New(at) => Arc::clone(&new[at]),
        Behind::Cached(held) => Arc::clone(held),
    }
}

/// A logit depends on the prefix and on all tokens up to its own.
fn of(prefix: &Filled, tokens: &[u32]) -> Vec<f32> {
    let sums = tokens.iter().scan(0, |sum, token| {
        *sum += token;
        Some(*sum)
    });
    sums.map(|sum| prefix.value + sum as f32).collect()
}

struct Cards {
    workers: Vec<BackboneWorker<Card>>,
    broken: Arc<Mutex<Vec<usize>>>,
}

fn cards(scripts: &[&[Fault]]) -> Cards {
    let broken = Arc::new(Mutex::new(Vec::new()));
    let devices = scripts.iter().enumerate().map(|(number, script)| OnDevice {
        model: Card {
            number,
            script: Mutex::new(script.iter().copied().collect()),
            broken: Arc::clone(&broken),
        },
        space: (),
        prefix_bytes: 1 << 20,
        vision_bytes: 1 << 20,
    });
    Cards { workers: BackboneWorker::on_devices(devices.collect(), "v1", 1.0), broken }
}

fn task(prompt: &[u32], response: &[u32], part: Part<Kept>) -> Task<Kept> {
    let prepared = Prepared {
        pixels: Pixels::try_new(1, 1, vec![0.5; 3].into()).unwrap(),
        image_key: [1; 32],
        prompt: prompt.into(),
        response: response.into(),
    };
    Task { prepared, part }
}

fn whole(prompt: &[u32], response: &[u32]) -> Vec<Task<Kept>> {
    vec![task(prompt, response, Part::Whole)]
}

fn one(
    worker: &mut BackboneWorker<Card>,
    batch: Vec<Task<Kept>>,
) -> Result<Outcome<Kept>, ModelFailure> {
    worker.score(batch).remove(0)
}

#[test]
fn a_prefix_and_an_image_are_computed_on_one_device_and_copied_to_the_others() {
    let mut cards = cards(&[&[], &[], &[]]);
    let want = one(&mut cards.workers[0], whole(&[2, 5], &[7, 8])).unwrap().logits;
    for worker in &mut cards.workers {
        let again = one(worker, whole(&[2, 5], &[7, 8])).unwrap();
        assert_eq!((again.logits, again.reuse.prefix), (want.clone(), true));
        // Another prompt for the same image: only the image is there.
        let other = one(worker, whole(&[2, 6], &[7])).unwrap();
        assert!(other.reuse.vision);
    }
    let stats = cards.workers[0].facts().prefixes.prefix_stats();
    // Two cards copied the first prefix, and two the second, which the first card computed.
    assert_eq!((stats.copied, stats.resident_entries), (4, 6));
    assert_eq!(cards.workers[1].memory().weights, 300);
}

#[test]
fn a_prefix_that_is_held_anywhere_counts_as_resident() {
    let mut cards = cards(&[&[], &[]]);
    one(&mut cards.workers[0], whole(&[2, 5], &[7])).unwrap();
    let prefixes = cards.workers[1].facts().prefixes;
    assert!(prefixes.is_resident(&[1; 32], &Arc::from([2, 5])));
    let batch = whole(&[2, 5], &[7]);
    assert!((cards.workers[1].work(&batch).linear - 1.0).abs() < 1e-9);
}

#[test]
fn an_open_item_goes_on_on_another_device() {
    let mut cards = cards(&[&[], &[]]);
    let first = one(&mut cards.workers[0], vec![task(&[2], &[7], Part::First)]).unwrap();
    let kept = first.kept.unwrap();
    let next = task(&[2], &[8], Part::Whole).prepared;
    let worker = &mut cards.workers[1];
    let kept = worker.take_over(kept, &next).unwrap();
    assert_eq!((kept.card, kept.prefix.card), (1, 1));
    let second = one(worker, vec![task(&[2], &[8], Part::Next(kept))]).unwrap();
    let whole = one(worker, whole(&[2], &[7, 8])).unwrap();
    assert_eq!([first.logits, second.logits].concat(), whole.logits);
}

#[test]
fn what_cannot_be_copied_is_computed() {
    let mut cards = cards(&[&[], &[]]);
    let want = one(&mut cards.workers[0], whole(&[2, 5], &[7])).unwrap().logits;
    let first = one(&mut cards.workers[0], vec![task(&[2, 5], &[7], Part::First)]).unwrap();
    lock(&cards.broken).push(0);
    let again = one(&mut cards.workers[1], whole(&[2, 5], &[7])).unwrap();
    assert_eq!((again.logits, again.reuse.prefix), (want, false));
    let next = task(&[2, 5], &[8], Part::Whole).prepared;
    assert!(cards.workers[1].take_over(first.kept.unwrap(), &next).is_none());
}

#[test]
fn a_lost_device_is_asked_for_nothing_and_holds_nothing() {
    let mut cards = cards(&[&[], &[Fault::Lost]]);
    let failed = one(&mut cards.workers[1], whole(&[2, 5], &[7])).unwrap_err();
    assert_eq!(failed, ModelFailure::DeviceLost("scripted".to_owned()));
    let facts = cards.workers[0].facts();
    assert!(!facts.prefixes.is_resident(&[1; 32], &Arc::from([2, 5])));
    assert_eq!(facts.prefixes.prefix_stats().limit_bytes, 1 << 20);
    assert_eq!(cards.workers[0].memory().weights, 100);
    assert!(!one(&mut cards.workers[0], whole(&[2, 5], &[7])).unwrap().reuse.prefix);
}

#[test]
fn a_device_that_is_short_of_memory_gives_up_what_it_holds() {
    let mut cards = cards(&[&[]]);
    one(&mut cards.workers[0], whole(&[2, 5], &[7])).unwrap();
    lock(&cards.workers[0].shared.model.script).push_back(Fault::Memory);
    let failed = one(&mut cards.workers[0], whole(&[2, 5], &[7])).unwrap_err();
    assert_eq!(failed, ModelFailure::OutOfMemory);
    cards.workers[0].relieve();
    let facts = cards.workers[0].facts();
    assert_eq!(facts.prefixes.prefix_stats().resident_bytes, 0);
    assert_eq!(facts.prefixes.vision_stats().resident_bytes, 0);
    assert!(one(&mut cards.workers[0], whole(&[2, 5], &[7])).is_ok());
}
