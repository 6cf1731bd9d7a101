//! TLS and QUIC settings. Every one differs from a default that would be hazardous here, or names
//! a default that the bounds rest on.
//!
//! TLS 1.3 only, both sides with a certificate of the cluster's authority, no 0-RTT, no
//! resumption: a session ticket would outlive the certificate that earned it.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;

use super::link::{LANE_WINDOW, LINK_WINDOW};

use crate::error::{Error, ErrorKind};
use crate::pki::{Credentials, Subject, provider};

/// Makes the settings of the accepting side.
pub(crate) fn server(credentials: &Credentials) -> Result<ServerConfig, Error> {
    let roots = Arc::clone(&credentials.roots);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(unusable)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let mut quic =
        ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(unusable)?));
    quic.transport_config(Arc::new(transport()?))
        .migration(false)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BYTES / 16)
        .incoming_buffer_size_total(INCOMING_BYTES);
    Ok(quic)
}

/// Makes the settings of the dialling side.
pub(crate) fn client(credentials: &Credentials) -> Result<ClientConfig, Error> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(Arc::clone(&credentials.roots))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = false;
    tls.resumption = Resumption::disabled();
    let mut quic = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(unusable)?));
    quic.transport_config(Arc::new(transport()?));
    Ok(quic)
}

/// Reads whom the certificate of the other side names; TLS has verified it.
pub(crate) fn subject(connection: &Connection) -> Result<Subject, String> {
    let identity = connection.peer_identity().ok_or("it shows no certificate")?;
    let chain = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| "its certificate is of an unknown kind")?;
    let own = chain.first().ok_or("it shows no certificate")?;
    Subject::of_certificate(own).map_err(|error| error.to_string())
}

fn transport() -> Result<TransportConfig, Error> {
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).map_err(unusable)?;
    let mut config = TransportConfig::default();
    config
        .receive_window(VarInt::from_u32(GUEST_WINDOW))
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW))
        .send_window(u64::from(LINK_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(16))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(idle));
    Ok(config)
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!("the certificate and the key cannot be used for TLS: {error}");
    Error::new(ErrorKind::Invalid, "tls_unusable", message)
}

/// Bytes that may wait here of a peer of which no more is known than that it has a certificate, or
/// that it is a client; a link to a region gets more.
const GUEST_WINDOW: u32 = 2 << 20;

/// The protocol version, negotiated by TLS.
const ALPN: &[u8] = b"anabranch/1";

/// A cut that no one announces is noticed after this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Several fit into the idle timeout, so the loss of one closes nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Connection attempts that wait to be looked at.
const MAX_INCOMING: usize = 256;

/// Bytes that may come before a connection attempt has been looked at, for all together.
const INCOMING_BYTES: u64 = 8 << 20;
