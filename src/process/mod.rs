//! A process of a container, seen from the host: its streams, terminal, signals and exit.
