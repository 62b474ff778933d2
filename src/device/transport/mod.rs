//! How the driver reaches a device: registers, queues, interrupts.
