//! `exp` and `tanh` in plain f32 arithmetic, which the compiler vectorises: the same operations in
//! the same order for every element, wherever it stands in a slice.

const LOG2_E: f32 = std::f32::consts::LOG2_E;
// ln 2 in two parts, so that `x - n·ln 2` keeps its low bits (Cody and Waite).
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Adding and subtracting 1.5·2^23 rounds an f32 to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// `e^x`; 0 below -87, saturated above 88. Relative error under 3e-7.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.0, 88.0);
    let rounded = clamped * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = (p * r * r + r) + 1.0;
    // The low bits of `rounded` are n, and |n| <= 127, so n + 127 fits the exponent field.
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let scale = f32::from_bits(exponent << 23);
    let scaled = value * scale;
    if x < -87.0 { 0.0 } else { scaled }
}

/// `tanh x`. Absolute error under 2e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// `erf x`, as a quotient of polynomials (Eigen's). Absolute error under 5e-7.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut p = -2.726_142_3e-10;
    p = p * square + 2.770_681_4e-8;
    p = p * square - 2.101_024e-6;
    p = p * square - 5.692_506_4e-5;
    p = p * square - 7.349_906_3e-4;
    p = p * square - 2.954_6e-3;
    p = p * square - 1.609_603_3e-2;
    let mut q = -1.456_607_2e-5;
    q = q * square - 2.133_740_6e-4;
    q = q * square - 1.682_827e-3;
    q = q * square - 7.373_329_2e-3;
    q = q * square - 1.426_473_9e-2;
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_f64_to_a_few_ulp() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 3e-7, "exp({x}) is off by {error}");
        }
    }

    #[test]
    fn exp_of_minus_infinity_is_exactly_zero() {
        assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
    }

    #[test]
    fn erf_agrees_with_its_integral() {
        // Simpson's rule from 0 on, in f64.
        let density = |t: f64| (-t * t).exp() * std::f64::consts::FRAC_2_SQRT_PI;
        let (step, mut want) = (1e-3, 0.0);
        for i in 0..6000 {
            let (from, x) = (i as f64 * step, (i + 1) as f64 * step);
            want += step / 6.0 * (density(from) + 4.0 * density(from + step / 2.0) + density(x));
            for sign in [1.0, -1.0] {
                let error = (f64::from(erf((sign * x) as f32)) - sign * want).abs();
                assert!(error < 5e-7, "erf({x}) is off by {error}");
            }
        }
        assert_eq!(erf(0.0).to_bits(), 0.0_f32.to_bits());
    }

    #[test]
    fn tanh_agrees_with_f64() {
        for i in -2000..2000 {
            let x = i as f32 / 100.0;
            let error = (f64::from(tanh(x)) - f64::from(x).tanh()).abs();
            assert!(error < 2e-7, "tanh({x}) is off by {error}");
        }
    }
}
