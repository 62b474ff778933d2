//! Every operation that takes a name, with every hostile name, in directories that are there and that are not. All are refused
//! before the host's kernel has seen a name.

use crate::Failure;
use crate::files::{BATCH, REFUSALS, Reply, Server};
use husk_evil_guest::message::{ATTRIBUTES, HOSTILE_ATTRIBUTES, Message, ROOT, TAKERS, Taker};
use husk_evil_guest::names::{HOSTILE, Hostile};

/// In both file servers.
pub fn perform() -> Result<u64, Failure> {
    let mut asked = 0;
    for number in 0..2 {
        let mut server = Server::mount(number)?;
        let top = server.export()?;
        for parent in [top, ROOT, 77] {
            asked += all(&mut server, parent, top, TAKERS, HOSTILE)?;
            asked += all(&mut server, parent, top, ATTRIBUTES, HOSTILE_ATTRIBUTES)?;
        }
        // It serves what is asked in good faith.
        server.export()?;
    }
    Ok(asked)
}

/// Asks for each of these with each name, once with its end and once without.
fn all(
    server: &mut Server,
    parent: u64,
    top: u64,
    takers: &[Taker],
    names: &[Hostile],
) -> Result<u64, Failure> {
    let mut asked = 0;
    for taker in takers {
        let mut batch = 0;
        for (name, end) in names.iter().flat_map(|name| [(name, true), (name, false)]) {
            let unique = server.number();
            let mut message: Message = taker.message(parent, top, name, unique);
            let request = if end { message.whole() } else { message.cut().whole() };
            server.send(batch, request);
            batch += 1;
            if batch == BATCH {
                expect_refusals(server, batch, taker)?;
                batch = 0;
            }
            asked += 1;
        }
        expect_refusals(server, batch, taker)?;
    }
    Ok(asked)
}

fn expect_refusals(server: &mut Server, count: u16, taker: &Taker) -> Result<(), Failure> {
    let answered = server.answers(count, crate::time::LONG, |number, reply| match reply {
        Reply { error, .. } if REFUSALS.contains(&error) => Ok(()),
        Reply { error, node, .. } => Err(Failure(taker.what, [number.into(), error.into(), node])),
    })?;
    if answered == count { Ok(()) } else { Err(Failure("no replies", [answered.into(), count.into(), 0])) }
}
