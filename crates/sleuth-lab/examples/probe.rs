use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut recipe = sleuth_lab::train::Recipe::mini();
    if let Some(text) = args.get(2).filter(|t| !t.is_empty()) { recipe = serde_json::from_str(&std::fs::read_to_string(text).unwrap()).unwrap(); }
    let budget: u64 = args.get(3).map_or(u64::MAX, |b| b.parse().unwrap());
    let mut run = sleuth_lab::train::Run::open(std::path::Path::new(&args[1]), &recipe).unwrap();
    let start = Instant::now();
    let (mut loss, mut acc, mut n) = (0.0, 0.0, 0);
    run.advance(budget, 200, &mut |p| {
        loss += p.loss; acc += p.accuracy; n += 1;
        if p.step % 20 == 0 {
            println!("{} {}/{} loss {:.4} acc {:.3} norm {:.2} lr {:.5} t {:.0}s", p.kind.name(), p.step, p.steps, loss / n as f64, acc / n as f64, p.gradient_norm, p.learning_rate, start.elapsed().as_secs_f64());
            loss = 0.0; acc = 0.0; n = 0;
        }
    }).unwrap();
    if run.is_done() { sleuth_lab::train::export(&run, std::path::Path::new(&args[4])).unwrap(); }
}
