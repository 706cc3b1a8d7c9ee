use std::collections::{BTreeMap, HashMap};

use candle_core::{Result, Tensor, Var};

use super::muon;
use super::parameters::Parameters;
use super::recipe::{Algorithm, Stage};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.98;
const EPSILON: f64 = 1e-8;
/// Of Muon's momentum.
const MOMENTUM: f64 = 0.95;

/// AdamW (Loshchilov and Hutter), or Muon (Jordan et al.) on the matrices and AdamW on the rest,
/// with global-norm clipping. Its moments can be saved, which is why it is not `candle_nn`'s.
#[derive(Debug)]
pub(super) struct Optimiser {
    trained: Parameters,
    moments: BTreeMap<String, Moments>,
    weight_decay: f64,
    clip: f64,
}

/// Running means of a parameter's gradients.
#[derive(Debug)]
enum Moments {
    /// AdamW's: of the gradient and of its square.
    First { mean: Tensor, square: Tensor },
    /// Muon's momentum.
    Momentum(Tensor),
}

/// Summed gradients, by parameter name.
pub(super) type Gradients = BTreeMap<String, Tensor>;

// === impl Optimiser ===

impl Optimiser {
    /// Of a stage's settings, for its parameters.
    pub(super) fn new(trained: Parameters, stage: &Stage) -> Result<Self> {
        let start = |(name, var): (&String, &Var)| {
            let muon = stage.optimiser == Algorithm::Muon && muon::trains(name, var.rank());
            let moments = if muon {
                Moments::Momentum(var.zeros_like()?)
            } else {
                Moments::First { mean: var.zeros_like()?, square: var.zeros_like()? }
            };
            Ok((name.clone(), moments))
        };
        let moments = trained.iter().map(start).collect::<Result<_>>()?;
        Ok(Self { trained, moments, weight_decay: stage.weight_decay, clip: stage.clip })
    }

    pub(super) fn trained(&self) -> &Parameters {
        &self.trained
    }

    /// Moments for saving.
    pub(super) fn tensors(&self) -> HashMap<String, Tensor> {
        let mut all = HashMap::new();
        for (name, moments) in &self.moments {
            match moments {
                Moments::First { mean, square } => {
                    all.insert(format!("m.{name}"), mean.clone());
                    all.insert(format!("v.{name}"), square.clone());
                }
                Moments::Momentum(mean) => {
                    all.insert(format!("m.{name}"), mean.clone());
                }
            }
        }
        all
    }

    /// Takes the moments back from what [`Optimiser::tensors`] gave.
    pub(super) fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let saved = |kind: char, name: &str| match tensors.get(&format!("{kind}.{name}")) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("the checkpoint has no moments of `{name}`"),
        };
        for (name, moments) in &mut self.moments {
            match moments {
                Moments::First { mean, square } => {
                    *mean = saved('m', name)?;
                    *square = saved('v', name)?;
                }
                Moments::Momentum(mean) => *mean = saved('m', name)?,
            }
        }
        Ok(())
    }

    /// One step (counted from 0); returns the gradients' global norm before clipping.
    pub(super) fn step(
        &mut self,
        step: u64,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<f64> {
        let mut square = 0.0;
        for gradient in gradients.values() {
            square += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let norm = square.sqrt();
        if !norm.is_finite() {
            candle_core::bail!("the gradient of step {step} is not finite");
        }
        let shrink = if norm > self.clip { self.clip / norm } else { 1.0 };
        for (name, var) in self.trained.iter() {
            let (Some(gradient), Some(moments)) = (gradients.get(name), self.moments.get_mut(name))
            else {
                continue;
            };
            let update = moments.update(step, &(gradient * shrink)?)?;
            // Gains and biases are not decayed.
            let decay = if var.rank() > 1 { self.weight_decay } else { 0.0 };
            let next =
                ((var.as_tensor() * (1.0 - learning_rate * decay))? - (update * learning_rate)?)?;
            var.set(&next.detach())?;
        }
        Ok(norm)
    }
}

// === impl Moments ===

impl Moments {
    /// Takes a gradient in; the direction to go, before the learning rate.
    fn update(&mut self, step: u64, gradient: &Tensor) -> Result<Tensor> {
        match self {
            Self::First { mean, square } => {
                let t = step as f64 + 1.0;
                let (bias_1, bias_2) = (1.0 - BETA_1.powf(t), 1.0 - BETA_2.powf(t));
                *mean = ((&*mean * BETA_1)? + (gradient * (1.0 - BETA_1))?)?;
                *square = ((&*square * BETA_2)? + (gradient.sqr()? * (1.0 - BETA_2))?)?;
                (&*mean / bias_1)? / ((&*square / bias_2)?.sqrt()? + EPSILON)?
            }
            Self::Momentum(mean) => {
                *mean = ((&*mean * MOMENTUM)? + (gradient * (1.0 - MOMENTUM))?)?;
                let nesterov = ((&*mean * MOMENTUM)? + (gradient * (1.0 - MOMENTUM))?)?;
                muon::orthogonal_update(&nesterov)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::Recipe;
    use super::*;

    fn stage(optimiser: Algorithm) -> Stage {
        Stage { optimiser, weight_decay: 0.0, clip: 1e9, ..Recipe::mini().stages[0].clone() }
    }

    #[test]
    fn a_quadratic_is_minimised() {
        for optimiser in [Algorithm::AdamW, Algorithm::Muon] {
            let mut parameters = Parameters::default();
            let start = Tensor::new(&[[3.0_f32, -2.0]], &Device::Cpu).unwrap();
            parameters.insert("x", &start).unwrap();
            let mut optimiser = Optimiser::new(parameters.clone(), &stage(optimiser)).unwrap();
            for step in 0..400 {
                let x = parameters.get("x").unwrap();
                let gradient = (x.as_tensor() * 2.0).unwrap().detach();
                let rate = 0.1 * (1.0 - step as f64 / 400.0);
                optimiser.step(step, &[("x".to_owned(), gradient)].into(), rate).unwrap();
            }
            let left = parameters.get("x").unwrap().abs().unwrap().max_all().unwrap();
            assert!(left.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap() < 0.05);
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_refused() {
        let mut parameters = Parameters::default();
        parameters.insert("x", &Tensor::new(&[[1.0_f32]], &Device::Cpu).unwrap()).unwrap();
        let mut optimiser = Optimiser::new(parameters, &stage(Algorithm::AdamW)).unwrap();
        let nan = Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap();
        assert!(optimiser.step(0, &[("x".to_owned(), nan)].into(), 0.1).is_err());
    }
}
