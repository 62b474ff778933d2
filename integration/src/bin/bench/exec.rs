//! What one more process in a running container costs.

use crate::{
    contender::{Background, time},
    table::table,
};
use husk_integration::{
    bundle::{Bundle, Image},
    runtime::Runtime,
};

const CONTENDERS: [Runtime; 3] = [Runtime::Husk, Runtime::Runc, Runtime::Crun];

/// `exec true` in a running container.
pub fn execs(rounds: usize) {
    let mut containers: Vec<Background> = CONTENDERS
        .iter()
        .map(|runtime| Background::start(*runtime, Bundle::new(Image::Busybox, &["sleep", "100000"])))
        .collect();
    let mut samples = vec![Vec::new(); containers.len()];
    for round in 0..=rounds {
        for (container, samples) in containers.iter().zip(&mut samples) {
            let taken = time(container.runtime.command(["exec", &container.id, "true"]));
            if round > 0 {
                samples.push(taken);
            }
        }
    }
    containers.iter_mut().for_each(Background::end);
    table("exec", &["husk exec true", "runc exec true", "crun exec true"], &mut samples, 1);
}
