//! What a start is made of.

use crate::{contender::time, picture};
use husk_integration::{
    bundle::{Bundle, Image},
    runtime::Runtime,
    scenario::fresh_id,
};
use std::time::{SystemTime, UNIX_EPOCH};

/// One start, step by step, by the machine's own debug log: seconds since `husk run` was started.
pub fn timeline() {
    let bundle = Bundle::new(Image::Busybox, &["true"]);
    let log = bundle.path.join("log");
    let path = bundle.write().to_owned();
    let mut command = Runtime::Husk.command(["--debug", "--log-format", "json"]);
    command.arg("--log").arg(&log).arg("run").arg("-b").arg(path).arg(fresh_id());
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let whole = time(command);
    let mut points: Vec<(String, f64)> = Vec::new();
    // The machine logs its steps together, when the last of them is done, with their times since it began its work.
    let mut steps: Vec<(String, f64)> = Vec::new();
    let mut logged = 0.0;
    for line in std::fs::read_to_string(&log).expect("the log is there").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let text = |field: &str| line[field].as_str().unwrap_or_default();
        let at = seconds_of_day(text("time")) - began % 86_400.0;
        // Fields stand behind the message, as runc's own log has them.
        let said = text("msg");
        match said.split_once("microseconds=").and_then(|(_, number)| number.parse::<f64>().ok()) {
            Some(since) => {
                let step = said.split('"').nth(1);
                steps.push((step.map_or(said.to_owned(), |step| format!("machine: {step}")), since / 1e6));
                logged = if steps.len() == 1 { at } else { logged };
            }
            None => {
                let words = said.split(' ').take_while(|word| !word.contains('='));
                points.push((words.collect::<Vec<_>>().join(" "), at));
            }
        }
    }
    let last = steps.iter().map(|(_, since)| *since).fold(0.0, f64::max);
    points.extend(steps.into_iter().map(|(step, since)| (step, logged - last + since)));
    points.push(("husk run has ended".to_owned(), whole.as_secs_f64()));
    points.sort_by(|one, other| one.1.total_cmp(&other.1));

    println!("## one start, in seconds since the command\n\n| until | at | took |\n|---|---|---|");
    let befores: Vec<f64> = [0.0].into_iter().chain(points.iter().map(|point| point.1)).collect();
    let spans = points.into_iter().zip(befores).map(|((what, at), before)| (what, before, at));
    let spans: Vec<(String, f64, f64)> = spans.collect();
    for (what, before, at) in &spans {
        println!("| {what} | {at:.3} | {:.3} |", at - before);
    }
    println!();
    picture::bars(
        "start",
        "One start, step by step: when each was done, in seconds since `husk run`",
        &spans,
    );
}

/// Seconds since midnight of a time like 2026-01-02T03:04:05.678Z.
fn seconds_of_day(time: &str) -> f64 {
    let clock = time.split(['T', 'Z']).nth(1).unwrap_or_default();
    clock.split(':').filter_map(|part| part.parse::<f64>().ok()).fold(0.0, |sum, part| sum * 60.0 + part)
}
