use std::collections::{BTreeMap, HashMap};

use candle_core::{Result, Tensor, Var};

use super::parameters::Parameters;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.98;
const EPSILON: f64 = 1e-8;

/// AdamW (Loshchilov and Hutter) with global-norm clipping. Its moments can be saved, which is why
/// it is not `candle_nn`'s.
#[derive(Debug)]
pub(super) struct AdamW {
    trained: Parameters,
    /// Name to first and second moment.
    moments: BTreeMap<String, (Tensor, Tensor)>,
    weight_decay: f64,
    clip: f64,
}

/// Summed gradients, by parameter name.
pub(super) type Gradients = BTreeMap<String, Tensor>;

// === impl AdamW ===

impl AdamW {
    pub(super) fn new(trained: Parameters, weight_decay: f64, clip: f64) -> Result<Self> {
        let zero = |var: &Var| var.zeros_like();
        let moments = trained
            .iter()
            .map(|(name, var)| Ok((name.clone(), (zero(var)?, zero(var)?))))
            .collect::<Result<_>>()?;
        Ok(Self { trained, moments, weight_decay, clip })
    }

    pub(super) fn trained(&self) -> &Parameters {
        &self.trained
    }

    /// Moments for saving.
    pub(super) fn tensors(&self) -> HashMap<String, Tensor> {
        self.moments
            .iter()
            .flat_map(|(n, (m, v))| [(format!("m.{n}"), m.clone()), (format!("v.{n}"), v.clone())])
            .collect()
    }

    /// Takes the moments back from what [`AdamW::tensors`] gave.
    pub(super) fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (name, moments) in &mut self.moments {
            let (Some(m), Some(v)) =
                (tensors.get(&format!("m.{name}")), tensors.get(&format!("v.{name}")))
            else {
                candle_core::bail!("the checkpoint has no moments of `{name}`");
            };
            *moments = (m.clone(), v.clone());
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
        let t = step as f64 + 1.0;
        let (bias_1, bias_2) = (1.0 - BETA_1.powf(t), 1.0 - BETA_2.powf(t));
        for (name, var) in self.trained.iter() {
            let (Some(gradient), Some((m, v))) = (gradients.get(name), self.moments.get_mut(name))
            else {
                continue;
            };
            let gradient = (gradient * shrink)?;
            *m = ((&*m * BETA_1)? + (&gradient * (1.0 - BETA_1))?)?;
            *v = ((&*v * BETA_2)? + (gradient.sqr()? * (1.0 - BETA_2))?)?;
            let update = ((&*m / bias_1)? / ((&*v / bias_2)?.sqrt()? + EPSILON)?)?;
            // Gains and biases are not decayed.
            let decay = if var.rank() > 1 { self.weight_decay } else { 0.0 };
            let next =
                ((var.as_tensor() * (1.0 - learning_rate * decay))? - (update * learning_rate)?)?;
            var.set(&next.detach())?;
        }
        Ok(norm)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn a_quadratic_is_minimised() {
        let mut parameters = Parameters::default();
        parameters.insert("x", &Tensor::new(&[[3.0_f32, -2.0]], &Device::Cpu).unwrap()).unwrap();
        let mut adamw = AdamW::new(parameters.clone(), 0.0, 1e9).unwrap();
        for step in 0..400 {
            let x = parameters.get("x").unwrap();
            let gradient = (x.as_tensor() * 2.0).unwrap().detach();
            adamw.step(step, &[("x".to_owned(), gradient)].into(), 0.05).unwrap();
        }
        let left = parameters.get("x").unwrap().abs().unwrap().max_all().unwrap();
        assert!(left.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap() < 0.05);
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_refused() {
        let mut parameters = Parameters::default();
        parameters.insert("x", &Tensor::new(&[[1.0_f32]], &Device::Cpu).unwrap()).unwrap();
        let mut adamw = AdamW::new(parameters, 0.0, 1.0).unwrap();
        let nan = Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap();
        assert!(adamw.step(0, &[("x".to_owned(), nan)].into(), 0.1).is_err());
    }
}
