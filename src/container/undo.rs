//! What to take back when a step fails.

/// Steps back, taken in reverse order when this is dropped, unless [`Undo::release`] was called: everything succeeded.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Box<dyn FnOnce() + 'a>>,
}

impl<'a> Undo<'a> {
    /// Nothing to take back yet.
    pub fn new() -> Undo<'a> {
        Undo::default()
    }

    /// Adds a step.
    pub fn push(&mut self, step: impl FnOnce() + 'a) {
        self.steps.push(Box::new(step));
    }

    /// Forgets all steps.
    pub fn release(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.steps.pop() {
            step();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn steps_are_taken_back_in_reverse_unless_released() {
        let taken = RefCell::new(Vec::new());
        let mut undo = Undo::new();
        undo.push(|| taken.borrow_mut().push(1));
        undo.push(|| taken.borrow_mut().push(2));
        drop(undo);
        assert_eq!(*taken.borrow(), [2, 1]);
        let mut undo = Undo::new();
        undo.push(|| taken.borrow_mut().push(3));
        undo.release();
        assert_eq!(*taken.borrow(), [2, 1]);
    }
}
