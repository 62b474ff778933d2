//! What a start is made of.

use crate::contender::time;
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
    println!("## one start, in seconds since the command\n\n| step | at |\n|---|---|");
    for line in std::fs::read_to_string(&log).expect("the log is there").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let (what, step) =
            (line["msg"].as_str().unwrap_or_default(), line["step"].as_str().unwrap_or_default());
        let at = seconds_of_day(line["time"].as_str().unwrap_or_default()) - began % 86_400.0;
        // The steps of the machine are logged together, with their own times since its process began its work.
        match line["microseconds"].as_f64() {
            Some(since) => println!("| {step} | + {:.3} since the first of them |", since / 1e6),
            None => println!("| {what} | {at:.3} |"),
        }
    }
    println!("| husk run has ended | {:.3} |\n", whole.as_secs_f64());
}

/// Seconds since midnight of a time like 2026-01-02T03:04:05.678Z.
fn seconds_of_day(time: &str) -> f64 {
    let clock = time.split(['T', 'Z']).nth(1).unwrap_or_default();
    clock.split(':').filter_map(|part| part.parse::<f64>().ok()).fold(0.0, |sum, part| sum * 60.0 + part)
}
