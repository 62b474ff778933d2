//! Stories at packet level: a mock driver plays the guest's kernel, pipes and sockets play the callers.

mod guest;
mod hostile;
mod random;
mod stories;
mod waiting;
