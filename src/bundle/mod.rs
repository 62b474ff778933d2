//! What we were given: a bundle.
