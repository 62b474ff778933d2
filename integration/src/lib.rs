//! Real guests and real callers.
