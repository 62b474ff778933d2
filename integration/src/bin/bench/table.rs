//! Figures side by side: medians, and their ratio to another's. What is printed here is the page.

use std::time::Duration;

/// One thing that was measured, a line for each contender; `reference` is the line that counts as 1.
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

/// Many things that were measured, a line for each; a column for each contender, and one for its ratio to the first's.
pub struct Grid<'a> {
    /// What it is about.
    pub title: String,
    /// What the figures count: "seconds", "MiB".
    pub unit: &'a str,
    /// Who; the first is what the others are compared with.
    pub contenders: &'a [&'a str],
    /// What, and the samples of each contender, none where it was not measured.
    pub lines: Vec<(String, Vec<Vec<f64>>)>,
    /// What has to be said about them, and above all what was not measured, and why.
    pub remarks: Vec<String>,
}

impl Grid<'_> {
    /// Prints it, unless there is nothing to say.
    pub fn print(&self) {
        let (first, others) = self.contenders.split_first().expect("somebody to compare with");
        println!("## {}\n", self.title);
        if !self.lines.is_empty() {
            print!("| {} | {first} |", self.unit);
            others.iter().for_each(|name| print!(" {name} | ratio |"));
            println!("\n|---|---|{}", "---|---|".repeat(others.len()));
        }
        for (what, samples) in &self.lines {
            let medians: Vec<Option<f64>> = samples.iter().map(|samples| median(samples)).collect();
            let one = medians[0];
            print!("| {what} | {} |", shown(one));
            for figure in &medians[1..] {
                let ratio = figure.zip(one).filter(|(_, one)| *one > 0.0).map(|(figure, one)| figure / one);
                print!(" {} | {} |", shown(*figure), shown(ratio));
            }
            println!();
        }
        if !self.lines.is_empty() {
            println!();
        }
        self.remarks.iter().for_each(|remark| println!("{remark}\n"));
    }
}

/// The middle one.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut samples = samples.to_vec();
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// Three digits that say something, and no figure where nobody measured one.
fn shown(figure: Option<f64>) -> String {
    let Some(figure) = figure else { return "-".to_owned() };
    let digits = if figure == 0.0 { 0.0 } else { (2.0 - figure.abs().log10().floor()).clamp(0.0, 6.0) };
    format!("{figure:.*}", digits as usize)
}
