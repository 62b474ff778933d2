//! The control queue: what the driver asks for beside frames. There is one thing: how many queue pairs it uses
//! (virtio 1.2, 5.1.6.5.5).

use super::vectors::{Side, Vectors};
use crate::device::{ActiveQueue, DeviceError, Memory};
use virtio_queue::{QueueOwnedT, QueueT};

/// How many pairs a command asks for; `None` for any other command, and for numbers that make no sense. Pure.
pub fn pairs_wanted(command: &[u8], most: u16) -> Option<u16> {
    let [CLASS_MQ, PAIRS_SET, low, high] = *command else { return None };
    Some(u16::from_le_bytes([low, high])).filter(|pairs| (1..=most).contains(pairs))
}

/// Answers what there is, at most [`BUDGET`] commands, and has `obey` do what they say; true if there may be more.
pub(super) fn serve(
    control: &mut ActiveQueue,
    memory: &Memory,
    most: u16,
    mut obey: impl FnMut(u16) -> bool,
) -> Result<(Told, bool), DeviceError> {
    let mut vectors = Vectors::new(memory);
    let mut used = false;
    for _ in 0..BUDGET {
        let queue = &mut control.queue;
        let Some(chain) = queue.iter(memory)?.next() else {
            if queue.enable_notification(memory)? {
                continue;
            }
            return Ok((used && queue.needs_notification(memory)?, false));
        };
        let head = chain.head_index();
        let mut command = [0; COMMAND];
        vectors.clear();
        let whole = vectors.add(chain.clone(), Side::Readable).is_some_and(|(_, bytes)| bytes == COMMAND)
            && vectors.take_front(&mut command);
        let done = whole && pairs_wanted(&command, most).is_some_and(&mut obey);
        vectors.clear();
        let room = vectors.add(chain, Side::Writable).map_or(0, |(_, bytes)| bytes);
        vectors.put(0, &[if done { OK } else { ERROR }]);
        queue.add_used(memory, head, u32::from(room > 0))?;
        used = true;
    }
    Ok((used && control.queue.needs_notification(memory)?, true))
}

/// Whether the driver is to be told that buffers were used.
pub(super) type Told = bool;

/// Class, command, and the number.
const COMMAND: usize = 4;
const BUDGET: usize = 16;

// Virtio 1.2, 5.1.6.5.
const CLASS_MQ: u8 = 4;
const PAIRS_SET: u8 = 0;
const OK: u8 = 0;
const ERROR: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_but_a_number_of_pairs_that_there_are_is_taken() {
        for (command, wanted) in [
            (&[4, 0, 1, 0][..], Some(1)),
            (&[4, 0, 4, 0], Some(4)),
            (&[4, 0, 0, 0], None),
            (&[4, 0, 5, 0], None),
            (&[4, 0, 1, 1], None),
            (&[4, 1, 1, 0], None),
            (&[0, 0, 1, 0], None),
            (&[4, 0, 1], None),
            (&[4, 0, 1, 0, 0], None),
            (&[], None),
        ] {
            assert_eq!(pairs_wanted(command, 4), wanted, "{command:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_number_is_within_bounds(command: Vec<u8>, most in 0u16..20) {
            prop_assert!(pairs_wanted(&command, most).is_none_or(|pairs| pairs >= 1 && pairs <= most));
        }
    }
}
