//! Where datagrams come from and go to, and by which clock: real UDP, or a network in a test.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime};

/// A datagram socket with the runtime that drives it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) socket: Arc<dyn AsyncUdpSocket>,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl Wire {
    /// Opens a real UDP socket. Inside of a tokio runtime only.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let runtime = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(std::net::UdpSocket::bind(address)?)?;
        Ok(Self { socket, runtime })
    }

    /// Makes an endpoint that accepts and dials.
    pub(crate) fn endpoint(self, server: ServerConfig) -> io::Result<Endpoint> {
        let config = EndpointConfig::default();
        Endpoint::new_with_abstract_socket(config, Some(server), self.socket, self.runtime)
    }
}
