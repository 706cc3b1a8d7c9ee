use candle_core::{Result, Tensor};

/// Quintic Newton-Schulz coefficients and number of rounds (Jordan et al., "Muon", 2024).
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
const ROUNDS: usize = 5;
/// Root mean square of an update, as AdamW's mostly is, so that both take one learning rate (Liu
/// et al., arXiv 2502.16982, section 2.2).
const UPDATE_RMS: f64 = 0.2;

/// The nearest semi-orthogonal matrix, about: every singular value of `matrix` becomes 0.7 to 1.2;
/// scaled to [`UPDATE_RMS`].
pub(super) fn orthogonal_update(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let norm = f64::from(matrix.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
    let tall = rows > columns;
    let upright = if tall { matrix.t()?.contiguous()? } else { matrix.clone() };
    let mut x = (upright / (norm + 1e-12))?;
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..ROUNDS {
        let gram = x.matmul(&x.t()?)?;
        let polynomial = ((&gram * b)? + (gram.matmul(&gram)? * c)?)?;
        x = ((&x * a)? + polynomial.matmul(&x)?)?;
    }
    let x = if tall { x.t()?.contiguous()? } else { x };
    x * (UPDATE_RMS * (rows.max(columns) as f64).sqrt())
}

/// Whether Muon trains this parameter: the matrices between embeddings and heads.
pub(super) fn trains(name: &str, rank: usize) -> bool {
    let is_edge = ["embed", "score.", "patch_head."].iter().any(|part| name.contains(part));
    rank == 2 && !is_edge
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn singular_values_come_near_one_another() {
        for shape in [(8, 24), (24, 8), (12, 12)] {
            // A spread of singular values from 0.2 to 5.
            let q = Tensor::rand(-1.0_f32, 1.0, shape, &Device::Cpu).unwrap();
            let update = orthogonal_update(&q).unwrap();
            let short = shape.0.min(shape.1);
            let scale = UPDATE_RMS * (shape.0.max(shape.1) as f64).sqrt();
            let upright = if shape.0 > shape.1 { update.t().unwrap() } else { update };
            let gram = upright.matmul(&upright.t().unwrap().contiguous().unwrap()).unwrap();
            let gram = (gram / (scale * scale)).unwrap();
            // The trace is the sum of squared singular values; that of the square, of their fourth
            // powers: near-equal values make both near the number of them.
            let trace = |t: &Tensor| -> f32 {
                let rows = t.to_vec2::<f32>().unwrap();
                rows.iter().enumerate().map(|(i, row)| row[i]).sum()
            };
            let squares = trace(&gram) / short as f32;
            assert!((0.6..1.3).contains(&squares), "{shape:?}: {squares}");
            let fourth = trace(&gram.matmul(&gram).unwrap()) / short as f32;
            assert!(fourth / (squares * squares) < 1.3, "{shape:?}: {fourth} {squares}");
        }
    }

    #[test]
    fn embeddings_heads_and_vectors_are_left_to_adamw() {
        assert!(trains("language_model.layers.0.mlp.up_proj.weight", 2));
        assert!(trains("multi_modal_projector.linear.weight", 2));
        assert!(!trains("language_model.embed_tokens.weight", 2));
        assert!(!trains("vision_tower.vision_model.embeddings.position_embedding.weight", 2));
        assert!(!trains("score.weight", 2) && !trains("patch_head.weight", 2));
        assert!(!trains("language_model.norm.weight", 1));
    }
}
