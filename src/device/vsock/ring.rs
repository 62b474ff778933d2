//! Bytes from the guest that the host's reader has not taken yet: a ring of fixed size, allocated when first needed.

use vm_memory::VolatileSlice;

#[derive(Default)]
pub(super) struct Ring {
    /// Empty until something is kept; then of the full size, of which the kernel backs what was touched.
    bytes: Box<[u8]>,
    start: usize,
    length: usize,
}

impl Ring {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends what fits of `from`; how many bytes that was. With credit kept, all of it fits.
    pub(super) fn push(&mut self, from: &VolatileSlice) -> usize {
        if self.bytes.is_empty() {
            self.bytes = vec![0; CAPACITY].into_boxed_slice();
        }
        let mut pushed = 0;
        // At most twice: to the end of the allocation, and from its start.
        while self.length < CAPACITY {
            let Ok(rest) = from.offset(pushed) else { break };
            let end = self.start.saturating_add(self.length);
            let range = if end < CAPACITY { end..CAPACITY } else { end.saturating_sub(CAPACITY)..self.start };
            let Some(room) = self.bytes.get_mut(range) else { break };
            let copied = rest.copy_to(room);
            if copied == 0 {
                break;
            }
            pushed = pushed.saturating_add(copied);
            self.length = self.length.saturating_add(copied);
        }
        pushed
    }

    /// What is held, oldest first, in at most two pieces.
    pub(super) fn pieces(&mut self) -> [VolatileSlice<'_>; 2] {
        let end = self.start.saturating_add(self.length);
        let (wrapped, rest) = self.bytes.split_at_mut(self.start);
        let ahead = rest.len().min(self.length);
        let behind = end.saturating_sub(CAPACITY).min(wrapped.len());
        let (first, second) = (rest.get_mut(..ahead), wrapped.get_mut(..behind));
        [VolatileSlice::from(first.unwrap_or_default()), VolatileSlice::from(second.unwrap_or_default())]
    }

    /// Forgets the oldest `bytes`.
    pub(super) fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.length);
        self.length = self.length.saturating_sub(bytes);
        self.start = self.start.saturating_add(bytes);
        if self.start >= CAPACITY {
            self.start = self.start.saturating_sub(CAPACITY);
        }
        if self.length == 0 {
            // The next bytes land where memory is backed already.
            self.start = 0;
        }
    }

    /// Forgets everything and gives the memory back; how many bytes that was.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).length
    }
}

/// As large as the window that the guest is given.
const CAPACITY: usize = super::connection::WINDOW as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn held(ring: &mut Ring) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in ring.pieces() {
            let mut bytes = vec![0; piece.len()];
            piece.copy_to(&mut bytes[..]);
            all.extend(bytes);
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn it_is_a_bounded_queue(steps in proptest::collection::vec((0..CAPACITY, 0..CAPACITY), 1..12)) {
            let (mut ring, mut model, mut next) = (Ring::default(), VecDeque::<u8>::new(), 0_u8);
            for (push, consume) in steps {
                let mut bytes: Vec<u8> = (0..push).map(|at| next.wrapping_add(at as u8)).collect();
                next = next.wrapping_add(91);
                let pushed = ring.push(&VolatileSlice::from(&mut bytes[..]));
                prop_assert_eq!(pushed, push.min(CAPACITY - model.len()));
                model.extend(&bytes[..pushed]);
                prop_assert_eq!(&held(&mut ring), model.make_contiguous());
                ring.consume(consume);
                model.drain(..consume.min(model.len()));
                prop_assert_eq!(&held(&mut ring), model.make_contiguous());
                prop_assert_eq!(ring.is_empty(), model.is_empty());
            }
            prop_assert_eq!(ring.clear(), model.len());
            prop_assert!(ring.is_empty());
        }
    }
}
