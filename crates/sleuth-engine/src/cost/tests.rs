use proptest::prelude::*;

use super::*;

const RATE: f64 = 500.0;

/// Batches of all sizes, one after the other, with noise.
struct Device {
    state: u64,
    /// Seconds of a batch as such, and of a GFLOP of each kind.
    truth: Features,
    noise: f64,
}

impl Device {
    fn new(truth: Features) -> Self {
        Self { state: 7, truth, noise: 0.05 }
    }

    /// Uniform in 0..1.
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn work(&mut self) -> Work {
        // Two orders of magnitude; every third batch sees no image.
        let size = 10.0 * 100_f64.powf(self.random());
        let images = if self.random() < 0.3 { 0.0 } else { self.random() };
        Work { linear: size, attention: size * 0.2 * self.random(), vision: size * images }
    }

    fn takes(&self, work: &Work) -> f64 {
        let [batch, linear, attention, vision] = self.truth;
        batch + linear * work.linear + attention * work.attention + vision * work.vision
    }

    /// Lets the model see `n` batches.
    fn run(&mut self, model: &mut CostModel, n: usize) {
        for _ in 0..n {
            let work = self.work();
            let noise = 1.0 + self.noise * 12_f64.sqrt() * (self.random() - 0.5);
            model.learn(&work, Duration::from_secs_f64(self.takes(&work) * noise));
        }
    }

    /// The mean error of predictions of what batches take without noise, and the worst.
    fn error(&mut self, model: &CostModel) -> (f64, f64) {
        let errors: Vec<f64> = (0..200)
            .map(|_| {
                let work = self.work();
                (model.predict(&work).as_secs_f64() / self.takes(&work) - 1.0).abs()
            })
            .collect();
        (errors.iter().sum::<f64>() / 200.0, errors.iter().copied().fold(0.0, f64::max))
    }
}

const TRUTH: Features = [0.02, 1.0 / 900.0, 1.0 / 150.0, 1.0 / 1500.0];

#[test]
fn the_prior_is_flops_by_rate() {
    let model = CostModel::new(RATE);
    let work = Work { linear: 500.0, attention: 250.0, vision: 250.0 };
    assert_eq!(model.predict(&work), Duration::from_secs(2));
    assert_eq!(model.predict(&Work::default()), Duration::ZERO);
}

#[test]
fn it_converges_from_any_prior() {
    for rate in [5.0, RATE, 50_000.0] {
        let mut device = Device::new(TRUTH);
        let mut model = CostModel::new(rate);
        device.run(&mut model, 20);
        assert!(device.error(&model).0 < 0.05, "{rate}: {:?}", device.error(&model));
        device.run(&mut model, 500);
        let (mean, worst) = device.error(&model);
        assert!(mean < 0.02 && worst < 0.05, "{rate}: {mean} {worst}");
        assert!(model.error() < 0.06, "{rate}: {}", model.error());
    }
}

#[test]
fn the_error_is_a_plain_mean_at_first() {
    let mut model = CostModel::new(RATE);
    let work = Work { linear: RATE, ..Work::default() };
    model.learn(&work, Duration::from_millis(500));
    assert!((model.error() - 1.0).abs() < 1e-6, "{}", model.error());
    model.learn(&work, Duration::from_millis(500));
    assert!((model.error() - 0.5).abs() < 1e-3, "{}", model.error());
}

#[test]
fn drift_is_followed() {
    for factor in [0.5, 2.0, 4.0] {
        let mut device = Device::new(TRUTH);
        let mut model = CostModel::new(RATE);
        device.run(&mut model, 1000);
        device.truth = device.truth.map(|x| factor * x);
        device.run(&mut model, 300);
        assert!(device.error(&model).0 < 0.1, "{factor}: {:?}", device.error(&model));
        device.run(&mut model, 500);
        assert!(device.error(&model).0 < 0.02, "{factor}: {:?}", device.error(&model));
    }
}

#[test]
fn outliers_change_little() {
    for seen in [30, 100, 1000] {
        for factor in [0.1, 10.0, 1000.0] {
            let (before, after, later) = outlier(seen, factor, 20);
            assert!(after < before + 0.02, "{seen} {factor}: {before} {after}");
            assert!(later < 0.03, "{seen} {factor}: {later}");
        }
    }
}

/// Too early to tell it from a prior that was wrong.
#[test]
fn an_early_outlier_is_corrected_soon() {
    for seen in [0, 1, 3, 10] {
        for factor in [10.0, 1000.0] {
            let (.., later) = outlier(seen, factor, 20);
            assert!(later < 0.05, "{seen} {factor}: {later}");
        }
    }
}

/// The error before a batch that takes `factor` times what it should, after it, and `then`
/// batches later.
fn outlier(seen: usize, factor: f64, then: usize) -> (f64, f64, f64) {
    let mut device = Device::new(TRUTH);
    let mut model = CostModel::new(RATE);
    device.run(&mut model, seen);
    let before = device.error(&model).0;
    let work = device.work();
    model.learn(&work, Duration::from_secs_f64(device.takes(&work) * factor));
    let after = device.error(&model).0;
    device.run(&mut model, then);
    (before, after, device.error(&model).0)
}

#[test]
fn one_kind_of_batch_alone_unlearns_nothing_else_for_good() {
    let mut device = Device::new(TRUTH);
    let mut model = CostModel::new(RATE);
    device.run(&mut model, 300);
    let work = Work { linear: 100.0, ..Work::default() };
    for _ in 0..100_000 {
        model.learn(&work, Duration::from_secs_f64(device.takes(&work)));
    }
    assert!((model.predict(&work).as_secs_f64() / device.takes(&work) - 1.0).abs() < 1e-3);
    device.run(&mut model, 300);
    assert!(device.error(&model).0 < 0.02);
}

#[test]
fn mistakes_are_forgotten() {
    let mut device = Device::new(TRUTH);
    let mut model = CostModel::new(RATE);
    for _ in 0..30 {
        let mistaken = Work { vision: 1e15, ..device.work() };
        model.learn(&mistaken, Duration::from_secs(1));
    }
    device.run(&mut model, 1000);
    assert!(device.error(&model).0 < 0.02, "{:?}", device.error(&model));
}

#[test]
fn numbers_that_are_none_do_not_stay() {
    let mut device = Device::new(TRUTH);
    let mut model = CostModel::new(RATE);
    model.estimates[1] = f64::NAN;
    device.run(&mut model, 100);
    assert!(device.error(&model).0 < 0.05, "{:?}", device.error(&model));
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), 0.0..1e4, Just(f64::NAN), Just(f64::INFINITY), Just(0.0)]
}

fn any_work() -> impl Strategy<Value = Work> {
    (any_float(), any_float(), any_float()).prop_map(|(linear, attention, vision)| Work {
        linear,
        attention,
        vision,
    })
}

proptest! {
    #[test]
    fn no_input_makes_it_negative_or_infinite(
        rate in any_float(),
        batches in proptest::collection::vec((any_work(), any::<u64>(), 0u32..64), 0..60),
    ) {
        let mut model = CostModel::new(rate);
        for (work, nanos, shift) in batches {
            model.learn(&work, Duration::from_nanos(nanos >> shift));
            prop_assert!(model.error().is_finite() && model.error() >= 0.0);
            prop_assert!(model.estimates.iter().all(|x| x.is_finite()), "{model:?}");
            let variances = (0..N).map(|i| model.covariance[i][i]);
            let is_sound = |x: f64| (0.0..=1.001 * PRIOR_VARIANCE).contains(&x);
            prop_assert!(variances.into_iter().all(is_sound), "{model:?}");
            let seconds = model.seconds(&work);
            prop_assert!(seconds.is_finite() && seconds >= 0.0, "{seconds}");
            let _ = model.predict(&work);
        }
    }

    /// Whatever it saw before, sense brings it back.
    #[test]
    fn it_recovers_from_anything(
        batches in proptest::collection::vec((any_work(), any::<u64>()), 0..30),
    ) {
        let mut device = Device::new(TRUTH);
        let mut model = CostModel::new(RATE);
        for (work, nanos) in batches {
            model.learn(&work, Duration::from_nanos(nanos));
        }
        device.run(&mut model, 2000);
        prop_assert!(device.error(&model).0 < 0.02, "{:?}", device.error(&model));
    }
}
