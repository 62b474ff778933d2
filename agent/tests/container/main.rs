//! Containers made by the real agent on the kernel at hand. See `stand` for what is needed.

mod holes;
mod inside;
mod life;
mod limits;
mod stand;
mod streams;
mod terminal;

/// Not a test of itself: the agent's side of every other one.
#[test]
#[ignore = "started by the other tests"]
fn serve_as_agent() {
    stand::serve_as_agent();
}
