//! Who is refused, and that both sides log why.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};

use super::rig::{FRAME_BYTES, Log, Node, Pki, address, nowhere, region, settings, soon};
use crate::pki::{self, ClientName, Credentials, Overwrite, SERVER_NAME, Subject, Validity};
use crate::settings::PkiPaths;
use crate::transport::framing::FrameWriter;
use crate::transport::refusal::explain;
use crate::transport::tls;

/// Runs `a`, which dials `b`, until the log has both warnings.
async fn check_refused(a: (&Pki, PkiPaths), b: (&Pki, PkiPaths), a_says: &str, b_says: &str) {
    let mut log = Log::capture();
    let there = Node::start(b.0, "b", &[("a", nowhere())], |settings| settings.pki = b.1);
    let to = address(&there);
    let here = Node::start(a.0, "a", &[("b", to)], |settings| settings.pki = a.1);
    log.warning(a_says).await;
    log.warning(b_says).await;
    drop((here, there));
}

#[tokio::test]
async fn a_node_of_another_cluster() {
    let (one, other) = (Pki::of(1, "one"), Pki::of(2, "other"));
    check_refused(
        (&one, one.paths("a", 30)),
        (&other, other.paths("b", 30)),
        "b shows a certificate of another cluster's authority",
        "the peer at 127.0.0.1 refused our certificate: it is of another cluster's authority",
    )
    .await;
}

/// The dialler accepts the other side, so it is the accepting side that has to refuse. Once with
/// an authority of another name, once with one that differs only in its key.
#[tokio::test]
async fn a_dialler_with_a_certificate_of_another_authority() {
    for name in ["one", "other"] {
        let (one, other) = (Pki::of(1, "one"), Pki::of(1, name));
        let ours = one.paths("a", 30);
        let forged = PkiPaths { authority: ours.authority, ..other.paths("a", 30) };
        check_refused(
            (&one, forged),
            (&one, one.paths("b", 30)),
            "b refused our certificate: it is of another cluster's authority",
            "the peer at 127.0.0.1 shows a certificate of another cluster's authority",
        )
        .await;
    }
}

#[tokio::test]
async fn a_node_whose_certificate_has_expired() {
    let pki = Pki::new();
    check_refused(
        (&pki, pki.paths("a", 30)),
        (&pki, pki.paths("b", -1)),
        "b shows a certificate that has expired: it needs a new one, issued with `anabranch pki",
        "the peer at 127.0.0.1 refused our certificate: it has expired or is not valid yet; issue",
    )
    .await;
}

#[tokio::test]
async fn a_dialler_whose_certificate_has_expired() {
    let pki = Pki::new();
    check_refused(
        (&pki, pki.paths("a", -3)),
        (&pki, pki.paths("b", 30)),
        "b refused our certificate: it has expired or is not valid yet; issue a new one with",
        "the peer at 127.0.0.1 shows a certificate that has expired",
    )
    .await;
}

#[tokio::test]
async fn a_node_of_another_region_than_dialled() {
    let mut log = Log::capture();
    let pki = Pki::new();
    let c = Node::start(&pki, "c", &[("a", nowhere())], |_| {});
    let a = Node::start(&pki, "a", &[("b", address(&c))], |_| {});
    log.warning("b is refused: at 127.0.0.1").await;
    log.warning("region/c; check the addresses").await;
    log.warning("a refused us: we dialled anabranch://").await;
    drop(a);
}

#[tokio::test]
async fn a_region_that_is_not_in_the_configuration() {
    let mut log = Log::capture();
    let pki = Pki::new();
    let b = Node::start(&pki, "b", &[], |_| {});
    let a = Node::start(&pki, "a", &[("b", address(&b))], |_| {});
    log.warning("a is refused: a is not in this cluster's list of regions").await;
    log.warning("b refused us: a is not in this cluster's list of regions").await;
    drop(a);
}

/// The right authority has signed for another cluster: nothing but the name tells.
#[tokio::test]
async fn a_certificate_that_names_another_cluster() {
    let (one, other) = (Pki::of(1, "one"), Pki::of(2, "other"));
    let b = Node::start(&one, "b", &[("a", nowhere())], |_| {});
    let mut log = Log::capture();
    let subject =
        Subject { cluster: other.authority.cluster(), role: pki::Role::Region(region("a")) };
    let issued = one.authority.issue(&subject, Validity::days(30)).unwrap();
    issued.store(one.directory(), Overwrite::Replace).unwrap();
    let connection = connect(&pki::paths(one.directory(), "a"), address(&b)).await;
    let refused = explain(&soon(connection.closed()).await, "b").reason;
    assert!(refused.contains("its certificate is of cluster 00000000"), "{refused}");
    log.warning("the peer at 127.0.0.1 is refused: its certificate is of cluster").await;
}

#[tokio::test]
async fn a_stranger_without_a_certificate() {
    let mut log = Log::capture();
    let pki = Pki::new();
    let b = Node::start(&pki, "b", &[("a", nowhere())], |_| {});
    let error = soon(dial(anonymous(&pki), address(&b)).closed_by_peer()).await;
    let reason = explain(&error, "b").reason;
    assert_eq!(reason, "b refused us: we showed no certificate");
    log.warning("the peer at 127.0.0.1 shows no certificate").await;
}

#[tokio::test]
async fn a_peer_that_speaks_another_protocol() {
    let mut log = Log::capture();
    let pki = Pki::new();
    let b = Node::start(&pki, "b", &[("a", nowhere())], |_| {});
    let mut tls = anonymous_tls(&pki);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let error = soon(dial(config, address(&b)).closed_by_peer()).await;
    assert_eq!(explain(&error, "b").reason, "b speaks another protocol version");
    log.warning("the peer at 127.0.0.1 speaks another protocol version").await;
}

#[tokio::test]
async fn a_client_acting_as_a_node() {
    let pki = Pki::new();
    let name: ClientName = "b".parse().unwrap();
    let issued = pki.authority.issue_client(&name, Validity::days(30)).unwrap();
    issued.store(pki.directory(), Overwrite::Replace).unwrap();
    let mut settings = settings(&pki, "b", &[]);
    settings.pki = pki::paths(pki.directory(), "b");
    let error = Node::with_leaf(&settings, None).unwrap_err().to_string();
    assert!(error.contains("b.pem is the certificate of anabranch://"), "{error}");
    assert!(error.contains("client/b, and this node is"), "{error}");
    assert!(error.contains("pki issue --region b"), "{error}");
}

#[tokio::test]
async fn a_peer_that_does_not_greet() {
    let mut log = Log::capture();
    let pki = Pki::new();
    let b = Node::start(&pki, "b", &[("a", nowhere())], |_| {});
    let connection = connect(&pki.paths("a", 30), address(&b)).await;
    let (send, _receive) = connection.open_bi().await.unwrap();
    FrameWriter::new(send, FRAME_BYTES).send(Bytes::from_static(b"hello?")).await.unwrap();
    log.warning("a does not greet as a node of Anabranch").await;
}

#[tokio::test]
async fn a_refusal_that_repeats_is_not_logged_each_time() {
    let mut log = Log::capture();
    let (one, other) = (Pki::of(1, "one"), Pki::of(2, "other"));
    let b = Node::start(&other, "b", &[("a", nowhere())], |_| {});
    let mut a = Node::start(&one, "a", &[("b", address(&b))], |_| {});
    for _ in 0..4 {
        a.event().await;
    }
    log.warning("refused our certificate").await;
    assert_eq!(log.count("b shows a certificate"), 1);
    assert_eq!(log.count("refused our certificate"), 1);
}

/// Connects with real credentials, but says nothing.
async fn connect(paths: &PkiPaths, to: SocketAddr) -> Connection {
    let config = tls::client(&Credentials::load(paths).unwrap()).unwrap();
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    soon(endpoint.connect_with(config, to, SERVER_NAME).unwrap()).await.unwrap()
}

struct Dialling {
    endpoint: Endpoint,
    config: ClientConfig,
    to: SocketAddr,
}

fn dial(config: ClientConfig, to: SocketAddr) -> Dialling {
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    Dialling { endpoint, config, to }
}

impl Dialling {
    /// Waits for the end of the attempt, which may come after the own part of the handshake.
    async fn closed_by_peer(self) -> quinn::ConnectionError {
        match self.endpoint.connect_with(self.config, self.to, SERVER_NAME).unwrap().await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    }
}

fn anonymous(pki: &Pki) -> ClientConfig {
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(anonymous_tls(pki)).unwrap()))
}

fn anonymous_tls(pki: &Pki) -> rustls::ClientConfig {
    let roots = Credentials::load(&pki.paths("x", 30)).unwrap().roots;
    let mut tls = rustls::ClientConfig::builder_with_provider(pki::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"anabranch/1".to_vec()];
    tls
}
