use clap::{Args, ValueEnum};
use sleuth_engine::DeviceChoice;
use sleuth_models::cpu::KvType;
use sleuth_models::device::{DeviceSettings, WeightType};

/// What computes, and how much of it may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Args)]
pub(crate) struct DeviceArguments {
    /// What computes
    #[arg(long, value_enum, default_value_t = DeviceKind::Auto)]
    pub(crate) device: DeviceKind,
    /// GPUs to use, by number, with commas between [default: all that have room for the model]
    #[arg(long, value_name = "LIST", value_parser = ordinals)]
    pub(crate) gpus: Option<Ordinals>,
    /// Share of each GPU's free memory that may be taken
    #[arg(long, value_name = "SHARE", default_value_t = 0.9, value_parser = share)]
    pub(crate) memory_share: f64,
    /// Type of weights on a GPU; on the CPU they are f32
    #[arg(long, value_enum, default_value_t = Weights::Bf16)]
    pub(crate) weights: Weights,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceKind {
    /// The GPUs that there are, else the CPU
    Auto,
    /// The CPU
    Cpu,
    /// GPUs; an error without
    Cuda,
}

/// Type of weights on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// As checkpoints are published
    Bf16,
    /// For GPUs before Ampere
    F16,
    /// Exact, twice the memory
    F32,
}

/// Numbers of GPUs below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ordinals(u64);

// === impl Ordinals ===

impl Ordinals {
    /// As text has them, with commas between; none twice.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut all = 0_u64;
        for number in text.split(',') {
            let bit = 1_u64.checked_shl(number.trim().parse().ok()?)?;
            if all & bit != 0 {
                return None;
            }
            all |= bit;
        }
        Some(Self(all))
    }

    fn list(self) -> Vec<u32> {
        (0..u64::BITS).filter(|number| self.0 >> number & 1 == 1).collect()
    }
}

// === impl DeviceArguments ===

impl DeviceArguments {
    pub(crate) const CPU: Self =
        Self { device: DeviceKind::Cpu, gpus: None, memory_share: 0.9, weights: Weights::Bf16 };

    /// As the engine takes it.
    pub(crate) fn choice(self, kv: KvType) -> DeviceChoice {
        let weights = match self.weights {
            Weights::Bf16 => WeightType::BF16,
            Weights::F16 => WeightType::F16,
            Weights::F32 => WeightType::F32,
        };
        DeviceChoice {
            ordinals: self.gpus.map(Ordinals::list),
            memory_share: self.memory_share,
            model: DeviceSettings { weights, kv, ..DeviceSettings::default() },
        }
    }
}

fn ordinals(text: &str) -> Result<Ordinals, String> {
    Ordinals::parse(text).ok_or_else(|| "must be numbers below 64, such as 0,1".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("must be a share above 0, to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_gpus_are_numbers_none_twice() {
        assert_eq!(Ordinals::parse("3, 0,63").map(Ordinals::list), Some(vec![0, 3, 63]));
        for wrong in ["", "a", "1,1", "64", "-1", "1,"] {
            assert_eq!(Ordinals::parse(wrong), None, "{wrong}");
        }
    }
}
