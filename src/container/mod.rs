//! The OCI container and what the verbs do with it.
