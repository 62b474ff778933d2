//! What a start costs, whole.

use crate::{contender::time, table::table};
use husk_integration::{
    bundle::{Bundle, Image},
    outside::Outside,
    qemu,
    runtime::Runtime,
    scenario::fresh_id,
};

/// `run true`, whole: create, start, exit, delete. And QEMU to the agent's first line, which is not even a container.
pub fn runs(rounds: usize, kernel: &str, initrd: &str) {
    let templates = Outside::new("templates");
    let configure = |name: &str, line: &str| {
        let path = templates.0.join(name);
        std::fs::write(&path, format!("[machine]\n{line}\n")).expect("a file");
        path
    };
    let directory = templates.0.join("templates");
    let cold = configure("cold", "templates = \"never\"");
    let copy = configure("copy", &format!("template_directory = {directory:?}"));
    let make = ["--config".as_ref(), copy.as_os_str(), "template".as_ref(), "create".as_ref()];
    println!("{}", Runtime::Husk.call(make).ok().stdout);
    let contenders = [
        (Runtime::Husk, Some(&cold)),
        (Runtime::Husk, Some(&copy)),
        (Runtime::Runc, None),
        (Runtime::Crun, None),
    ];
    let bundles: Vec<Bundle> = contenders.iter().map(|_| Bundle::new(Image::Busybox, &["true"])).collect();
    let mut samples = vec![Vec::new(); contenders.len() + 1];
    // The first of each warms the page cache and is not counted.
    for round in 0..=rounds {
        for (((runtime, config), bundle), samples) in contenders.iter().zip(&bundles).zip(&mut samples) {
            let path = bundle.write().to_owned();
            let id = fresh_id();
            let config = config.map(|config| ["--config".as_ref(), config.as_os_str()]);
            let run = ["run".as_ref(), "-b".as_ref(), path.as_os_str(), id.as_ref()];
            let command = runtime.command(config.iter().flatten().copied().chain(run));
            let taken = time(command);
            if round > 0 {
                samples.push(taken);
            }
        }
        let taken = qemu::to_first_line(kernel, initrd);
        if round > 0 {
            samples.last_mut().expect("one more").push(taken);
        }
    }
    let names = [
        "husk run true, cold",
        "husk run true, from a template",
        "runc run true",
        "crun run true",
        "QEMU microvm to the agent's first line",
    ];
    table("start", &names, &mut samples, 2);
}
