use std::fmt;

/// What a reference implementation gave for a model: a server that gives the same is right.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfTest {
    /// What made the logits, such as `transformers 5.23.0, peft 0.21.2`.
    pub reference: String,
    /// How far a logit may be off.
    pub tolerance: Tolerance,
    /// At least one.
    pub cases: Vec<SelfTestCase>,
}

/// One image, prompt and response, and the logits that belong to it.
#[derive(Clone, PartialEq)]
pub struct SelfTestCase {
    /// An encoded image file.
    pub image: Vec<u8>,
    /// The prompt; empty is the model's own.
    pub prompt: String,
    /// The response.
    pub response: String,
    /// One per token of the response.
    pub logits: Vec<f32>,
}

/// A difference is allowed up to `absolute + relative * |reference|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// In logits.
    pub absolute: f32,
    /// Of the reference's logit.
    pub relative: f32,
}

/// Logits that are not the reference's.
#[derive(Clone, Debug, PartialEq)]
pub enum Differs {
    /// Another number of tokens.
    Tokens {
        /// Of the reference.
        expected: usize,
        /// Of this model.
        found: usize,
    },
    /// A logit is too far off.
    Logit {
        /// The token's place in the response.
        token: usize,
        /// Of the reference.
        expected: f32,
        /// Of this model.
        found: f32,
    },
}

// === impl SelfTestCase ===

impl SelfTestCase {
    /// The largest difference of a logit, where all are within the tolerance.
    pub fn compare(&self, found: &[f32], tolerance: Tolerance) -> Result<f32, Differs> {
        if found.len() != self.logits.len() {
            return Err(Differs::Tokens { expected: self.logits.len(), found: found.len() });
        }
        let mut worst = 0.0_f32;
        for (token, (&expected, &found)) in self.logits.iter().zip(found).enumerate() {
            let difference = (expected - found).abs();
            let allowed = tolerance.absolute + tolerance.relative * expected.abs();
            if difference.is_nan() || difference > allowed {
                return Err(Differs::Logit { token, expected, found });
            }
            worst = worst.max(difference);
        }
        Ok(worst)
    }
}

impl fmt::Debug for SelfTestCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfTestCase")
            .field("image_bytes", &self.image.len())
            .field("tokens", &self.logits.len())
            .finish_non_exhaustive()
    }
}

// === impl Differs ===

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens { expected, found } => {
                write!(f, "{found} tokens where the reference has {expected}")
            }
            Self::Logit { token, expected, found } => {
                write!(f, "token {token} has the logit {found} where the reference has {expected}")
            }
        }
    }
}

impl std::error::Error for Differs {}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance { absolute: 0.01, relative: 0.1 };

    fn case(logits: &[f32]) -> SelfTestCase {
        SelfTestCase {
            image: Vec::new(),
            prompt: String::new(),
            response: "a b".to_owned(),
            logits: logits.to_vec(),
        }
    }

    #[test]
    fn what_is_within_the_tolerance_holds_with_its_largest_difference() {
        let worst = case(&[10.0, 0.0]).compare(&[10.9, 0.005], TOLERANCE).unwrap();
        assert!((worst - 0.9).abs() < 1e-5, "{worst}");
    }

    #[test]
    fn a_logit_too_far_off_is_named() {
        let differs = case(&[10.0, 0.0]).compare(&[10.0, 0.02], TOLERANCE).unwrap_err();
        assert_eq!(differs, Differs::Logit { token: 1, expected: 0.0, found: 0.02 });
    }

    #[test]
    fn neither_nan_nor_another_number_of_tokens_holds() {
        assert!(case(&[1.0]).compare(&[f32::NAN], TOLERANCE).is_err());
        let differs = case(&[1.0]).compare(&[1.0, 1.0], TOLERANCE).unwrap_err();
        assert_eq!(differs, Differs::Tokens { expected: 1, found: 2 });
    }
}
