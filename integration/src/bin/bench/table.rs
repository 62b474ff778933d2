//! Figures side by side.

use std::time::Duration;

/// Prints medians, spreads and ratios; `reference` is the row that counts as 1.
pub fn table(title: &str, names: &[&str], samples: &mut [Vec<Duration>], reference: usize) {
    for samples in samples.iter_mut() {
        samples.sort_unstable();
    }
    let median = |samples: &[Duration]| samples[samples.len() / 2].as_secs_f64();
    let one = median(&samples[reference]);
    println!("## {title}\n\n| what | median s | from - to | ratio |\n|---|---|---|---|");
    for (name, samples) in names.iter().zip(samples.iter()) {
        let (from, to) = (samples[0].as_secs_f64(), samples[samples.len() - 1].as_secs_f64());
        println!("| {name} | {:.3} | {from:.3} - {to:.3} | {:.2} |", median(samples), median(samples) / one);
    }
    println!();
}
