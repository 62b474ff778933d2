//! PID 1 of a husk guest.

fn main() {
    husk_agent::serve()
}
