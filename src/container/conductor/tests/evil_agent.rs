//! An agent that is the guest's, and lies: whatever it says and does not say, its container can be asked after and killed, in
//! the time that a kill may take, and nothing else is the worse for it.
//!
//! What breaks one conversation is told in the conversation's own tests; here it meets a container's life.

use super::*;
use husk_evil_agent::{WAYS, Way};

#[test]
fn whatever_an_agent_says_its_container_can_be_asked_after_and_killed_in_time() {
    // Not all at once: times are measured.
    for some in WAYS.chunks(8) {
        std::thread::scope(|scope| {
            for way in some {
                scope.spawn(move || meet(*way));
            }
        });
    }
}

fn meet(evil: Way) {
    let what = evil.what;
    let manners = Arc::new(Manners { evil: Some(evil), ..Manners::default() });
    let stage = stage_with(&["sleep"], true, Duration::from_secs(60), SIZE.begun_mib, manners);
    // Nobody may be there to hear it any more, if the greeting was a lie.
    let _ = send_proceed(&stage.parent);
    // Made or failed, if it is known so soon.
    let _ = receive_report(&stage.parent, Some(Duration::from_millis(500)));
    let mut start = Connection::open(&stage.control).unwrap();
    start.send(&Command::Start, &[]).unwrap();
    let _ = start.receive(Some(Duration::from_millis(500)));
    let asked = Instant::now();
    let _ = stage.ask(Command::Status);
    if evil.at == Point::Processes {
        let _ = stage.ask(Command::Processes);
    }
    let bound = Duration::from_secs(2);
    assert!(asked.elapsed() < bound, "{what}: asking took {:?}", asked.elapsed());

    let begun = Instant::now();
    let answer = stage.kill();
    assert!(begun.elapsed() < bound, "{what}: a kill was answered after {:?}", begun.elapsed());
    let ended = stage.life.join().unwrap();
    // What a kill may take, and some time for a busy machine.
    let bound = deadline::KILL_ALL + Duration::from_millis(1500);
    assert!(begun.elapsed() < bound, "{what}: it lived on for {:?} ({answer:?})", begun.elapsed());
    match (evil.at, ended) {
        // It never was: its caller is told so, in few words and on one line.
        (Point::Greeting | Point::Create, Err(failed)) => {
            let length = failed.message.chars().count();
            assert!(length < 10_000, "{what}: {length} characters");
            assert!(!failed.message.contains(char::is_control), "{what}: {}", failed.message);
        }
        (Point::Greeting, Ok(status)) => panic!("{what}: it ended with {status}"),
        (_, Err(failed)) => panic!("{what}: {}", failed.message),
        (Point::Kill, Ok(status)) => assert_eq!(status, 137, "{what}"),
        (_, Ok(_)) => {}
    }
}
