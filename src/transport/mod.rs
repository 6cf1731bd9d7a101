//! Transport: QUIC with mutual TLS between the nodes of a cluster.
