//! A running machine: one guest with its memory, vcpus, devices, queues and transport.

pub mod control;
pub mod order;
