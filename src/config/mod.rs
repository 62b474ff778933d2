//! What we decided, without I/O.
