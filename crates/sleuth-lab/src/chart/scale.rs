/// Least number of ticks that a linear axis aims at.
const TICKS: f64 = 5.0;
/// Ticks of the axis of percentiles.
const PERCENTILES: [f64; 5] = [0.0, 50.0, 90.0, 99.0, 99.9];

/// Places the values of an axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    kind: Kind,
    /// Of the values as they are spaced; the first lies below the second.
    from: (f64, f64),
    /// Of the drawing.
    to: (f64, f64),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Linear,
    /// By the logarithm, from a power of ten to one.
    Logarithmic,
    /// By the logarithm of 1 / (1 - quantile), from 0 % to 99.9 %.
    Percentiles,
}

// === impl Scale ===

impl Scale {
    /// Of values of which the first lies below the second.
    pub(crate) fn linear(from: (f64, f64), to: (f64, f64)) -> Self {
        Self { kind: Kind::Linear, from, to }
    }

    /// Of values above 0; reaches to the powers of ten around them.
    pub(crate) fn logarithmic((least, most): (f64, f64), to: (f64, f64)) -> Self {
        let low = least.log10().floor();
        let high = most.log10().ceil().max(low + 1.0);
        Self { kind: Kind::Logarithmic, from: (low, high), to }
    }

    /// Of percentiles from 0 to 99.9.
    pub(crate) fn percentiles(to: (f64, f64)) -> Self {
        Self { kind: Kind::Percentiles, from: (0.0, 3.0), to }
    }

    /// Where a value lies in the drawing; one beyond an end lies on that end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let spaced = match self.kind {
            Kind::Linear => value,
            Kind::Logarithmic => value.log10(),
            Kind::Percentiles => -(1.0 - value / 100.0).log10(),
        };
        let part = (spaced - self.from.0) / (self.from.1 - self.from.0);
        self.to.0 + (self.to.1 - self.to.0) * part.clamp(0.0, 1.0)
    }

    /// Where lines belong, and what they are called.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        let values = match self.kind {
            Kind::Linear => self.round_values(),
            Kind::Logarithmic => self.tenfolds(),
            Kind::Percentiles => PERCENTILES.to_vec(),
        };
        values.into_iter().map(|value| (self.place(value), value.to_string())).collect()
    }

    /// The powers of ten; where there are few, also what lies between.
    fn tenfolds(&self) -> Vec<f64> {
        let (low, high) = (self.from.0 as i32, self.from.1 as i32);
        let factors: &[f64] = if high - low <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decade = |power| factors.iter().map(move |factor| factor * 10_f64.powi(power));
        (low..high).flat_map(decade).chain([10_f64.powi(high)]).collect()
    }

    /// From 0 in steps of 1, 2 or 5 times a power of ten.
    fn round_values(&self) -> Vec<f64> {
        let rough = self.from.1 / TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let factors = [5.0, 2.0, 1.0];
        let factor = factors.into_iter().find(|f| f * power <= rough).unwrap_or(1.0);
        let step = factor * power;
        // Division where the step is below 1 keeps 0.6 from reading 0.6000000000000001.
        let tick = |i: u32| {
            let i = f64::from(i);
            if step < 1.0 { i / (1.0 / step).round() } else { i * step }
        };
        (0..).map(tick).take_while(|value| *value <= self.from.1).take(16).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        let scale = Scale::linear((0.0, 12.0), (0.0, 100.0));
        assert_eq!(labels(scale), ["0", "2", "4", "6", "8", "10", "12"]);
        let scale = Scale::linear((0.0, 1.0), (0.0, 100.0));
        assert_eq!(labels(scale), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert!((5..16).contains(&labels(Scale::linear((0.0, 9973.0), (0.0, 1.0))).len()));
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten_around_the_values() {
        let scale = Scale::logarithmic((0.3, 40.0), (0.0, 3.0));
        assert_eq!(labels(scale), ["0.1", "1", "10", "100"]);
        assert!((scale.place(1.0) - 1.0).abs() < 1e-9);
        assert_eq!(labels(Scale::logarithmic((1.0, 1.0), (0.0, 3.0))), ["1", "2", "5", "10"]);
    }

    #[test]
    fn tenfolds_of_rarity_are_evenly_spaced() {
        let scale = Scale::percentiles((0.0, 3.0));
        for (percentile, place) in [(0.0, 0.0), (90.0, 1.0), (99.0, 2.0), (99.9, 3.0), (100.0, 3.0)]
        {
            assert!((scale.place(percentile) - place).abs() < 1e-9, "{percentile}");
        }
    }
}
