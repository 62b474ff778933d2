//! The machine's memory follows the limits of its containers. It begins with 512 MiB, may have 2048, and its kernel needs 48.

use super::*;
use husk_protocol::Resources;

const MIB: u64 = 1 << 20;

fn limits(limit: &str) -> Box<Resources> {
    Box::new(Resources { files: vec![("memory.max".into(), limit.into())], ..Default::default() })
}

impl Stage {
    /// How much more than at the beginning the machine was given so far, in MiB.
    fn plugged(&self) -> Vec<u64> {
        self.guest.plugged.lock().unwrap().iter().map(|bytes| bytes / MIB).collect()
    }

    #[track_caller]
    fn joined(&self, mib: u64) -> Connection {
        let mut connection = self.join(&["sleep"], &(mib * MIB).to_string(), null());
        assert!(matches!(connection.receive(SOON).unwrap(), Outcome::Joined(_)));
        connection
    }

    #[track_caller]
    fn refused_to_join(&self, mib: u64) -> String {
        self.join(&["sleep"], &(mib * MIB).to_string(), null()).receive(SOON).unwrap_err().to_string()
    }

    fn finish(self) {
        self.kill().unwrap();
        assert_eq!(self.status(), 137);
    }
}

#[test]
fn a_machine_grows_with_the_containers_that_join_it_and_never_beyond_its_bound() {
    let stage = started(&["sleep"]);
    let first = stage.joined(400);
    assert!(stage.plugged().is_empty(), "there is enough");
    let second = stage.joined(100);
    assert_eq!(stage.plugged(), [36], "both, and 48 for the kernel");
    let third = stage.joined(1500);
    assert_eq!(stage.plugged(), [36, 1536], "as much as it may have");
    let refused = stage.refused_to_join(49);
    assert!(
        refused.contains("51380224 bytes for this container and 2097152000 for the others")
            && refused.contains("the 2147483648 that their machine can have"),
        "{refused}"
    );
    // What has gone does not count any more.
    drop((second, third));
    assert!(eventually(|| stage.ask_of(3, Command::Status).is_err()));
    let again = stage.joined(1000);
    assert_eq!(stage.plugged(), [36, 1536]);
    drop((first, again));
    stage.finish();
}

#[test]
fn a_limit_that_is_raised_gets_its_memory_before_it_holds() {
    let stage = started(&["sleep"]);
    let ask = |limit: u64| stage.ask(Command::Memory { limit: limit * MIB });
    assert_eq!(ask(100).unwrap(), Outcome::Memory(512));
    assert_eq!(ask(1000).unwrap(), Outcome::Memory(1048));
    assert_eq!(ask(2048).unwrap(), Outcome::Memory(2048));
    let refused = ask(2049).unwrap_err().to_string();
    assert!(
        refused.contains("2148532224 is more than the 2147483648 bytes that the machine can have"),
        "{refused}"
    );
    assert!(stage.plugged().is_empty(), "it was only asked");

    let update = |limit: &str| stage.ask(Command::Update(limits(limit)));
    assert_eq!(update("1048576000").unwrap(), Outcome::Done);
    assert_eq!(stage.plugged(), [536]);
    assert_eq!(ask(100).unwrap(), Outcome::Memory(1048), "what there is");
    for less in ["104857600", "max"] {
        assert_eq!(update(less).unwrap(), Outcome::Done);
    }
    assert!(update("2148532224").is_err());
    assert_eq!(stage.plugged(), [536]);
    // One that has joined: with what the others have.
    let joined = stage.joined(900);
    assert_eq!(stage.plugged(), [536]);
    assert_eq!(stage.ask_of(1, Command::Update(limits("1073741824"))).unwrap(), Outcome::Done);
    assert_eq!(stage.plugged(), [536, 560]);
    assert!(stage.refused_to_join(1025).contains("1073741824 for the others"));
    stage.ask_of(1, Command::Update(limits("max"))).unwrap();
    let other = stage.joined(2000);
    drop((joined, other));
    stage.finish();
}

#[test]
fn a_guest_that_does_not_take_its_memory_is_believed_to_have_what_it_had() {
    let stage = started(&["sleep"]);
    stage.guest.takes.store(100 * MIB, Ordering::SeqCst);
    let refused = stage.refused_to_join(1000);
    assert!(refused.contains("cannot plug memory into the guest: it did not come"), "{refused}");
    let refused = stage.ask(Command::Update(limits("1073741824"))).unwrap_err().to_string();
    assert!(refused.contains("cannot plug memory into the guest"), "{refused}");
    assert_eq!(stage.ask(Command::Memory { limit: MIB }).unwrap(), Outcome::Memory(512));
    // Where it is only for comfort, there is none.
    stage.guest.takes.store(0, Ordering::SeqCst);
    let joined = stage.joined(500);
    stage.guest.takes.store(u64::MAX, Ordering::SeqCst);
    let other = stage.joined(500);
    assert_eq!(stage.plugged(), [536, 560, 36, 536]);
    drop((joined, other));
    stage.finish();
}

#[test]
fn a_copy_of_a_smaller_machine_gets_the_rest_before_its_container_is_made() {
    let stage = stage_with(&["sleep"], true, Duration::from_secs(60), 1000, Arc::default());
    send_proceed(&stage.parent).unwrap();
    assert_eq!(receive_report(&stage.parent, SOON).unwrap(), Report::Created { cold: true });
    assert_eq!(stage.plugged(), [488]);
    stage.finish();

    let stage = stage_with(&["sleep"], true, Duration::from_secs(60), 4096, Arc::default());
    stage.guest.takes.store(0, Ordering::SeqCst);
    send_proceed(&stage.parent).unwrap();
    let failed = stage.life.join().unwrap().unwrap_err();
    assert!(failed.message.contains("cannot plug memory into the guest"), "{failed:?}");
}
