//! The file server: files of the host, shared over virtio-fs.
