//! A driver to test devices with, without KVM.
