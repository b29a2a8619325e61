//! Connections that are encrypted, and many of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use starkeep::env::Env;
use starkeep::server::Server;
use starkeep::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{TestServer, connect, run, settings, value};

/// An authority with the certificates that it signs, as files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Authority {
    fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
            .expect("signs itself");
        std::fs::write(dir.join("ca.pem"), issuer.pem()).expect("written");
        Self {
            issuer,
            dir: dir.to_owned(),
        }
    }

    /// Writes `name.pem` and `name.key`.
    fn sign(&self, name: &str, common_name: &str, usage: ExtendedKeyUsagePurpose) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        std::fs::write(self.dir.join(format!("{name}.pem")), certificate.pem()).expect("written");
        std::fs::write(self.dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    fn client(&self, certificate: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.dir.join("ca.pem")).expect("reads"))
            .expect("a root");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = builder.with_root_certificates(roots);
        Arc::new(match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![
                    CertificateDer::from_pem_file(self.dir.join(format!("{name}.pem")))
                        .expect("reads"),
                ];
                let key = PrivateKeyDer::from_pem_file(self.dir.join(format!("{name}.key")))
                    .expect("reads");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("a certificate")
            }
        })
    }
}

/// Logs in under TLS; the first message after the handshake is what comes back.
async fn log_in_encrypted(
    server: &Server,
    config: Arc<ClientConfig>,
    user: &str,
) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(server.addr()).await?;
    socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    assert_eq!(socket.read_u8().await?, b'S');
    let mut stream = TlsConnector::from(config)
        .connect(ServerName::try_from("localhost").expect("a name"), socket)
        .await?;
    let mut body = vec![0, 3, 0, 0];
    body.extend(format!("user\0{user}\0\0").bytes());
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend(body);
    stream.write_all(&packet).await?;
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let mut message = vec![kind];
    message.resize(length as usize - 3, 0);
    stream.read_exact(&mut message[1..]).await?;
    Ok(message)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_encrypt_and_show_certificates() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path());
    authority.sign("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth);
    authority.sign("root", "root", ExtendedKeyUsagePurpose::ClientAuth);
    let with_tls = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings(dir.path());
        settings.tls_cert = Some(dir.path().join("server.pem"));
        settings.tls_key = Some(dir.path().join("server.key"));
        change(&mut settings);
        settings
    };
    let server = Server::start(&with_tls(&|_| {}), Env::system())
        .await
        .expect("starts");
    // In clear, and encrypted: AuthenticationOk from loopback.
    assert!(connect(server.addr(), "root", "").await.is_ok());
    assert_eq!(
        log_in_encrypted(&server, authority.client(None), "root")
            .await
            .expect("logs in"),
        [b'R', 0, 0, 0, 0]
    );
    // With a password, channel binding is offered, and only under TLS.
    let root = connect(server.addr(), "root", "").await.expect("logs in");
    run(&root, "CREATE USER ana IDENTIFIED BY 'secret'").await;
    let offer = log_in_encrypted(&server, authority.client(None), "ana")
        .await
        .expect("is asked");
    assert!(
        offer.windows(18).any(|w| w == b"SCRAM-SHA-256-PLUS"),
        "{offer:?}"
    );
    let error = connect(
        server.addr(),
        "ana",
        "password=secret channel_binding=require",
    )
    .await
    .expect_err("refused");
    assert!(!error.to_string().is_empty());
    assert!(
        connect(server.addr(), "ana", "password=secret")
            .await
            .is_ok()
    );
    // What is sent in clear after the request is no handshake.
    let mut socket = TcpStream::connect(server.addr()).await.expect("connects");
    socket
        .write_all(b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x13\0\x03\0\0user\0root\0\0")
        .await
        .expect("sends");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    assert!(
        answer.first() == Some(&b'S') && !answer.windows(2).any(|w| w == b"R\0"),
        "{answer:?}"
    );
    // New certificates are taken; ones that do not read leave the old in force.
    authority.sign("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth);
    server.reload_certificates().expect("reads");
    std::fs::write(dir.path().join("server.key"), "no key").expect("written");
    assert!(
        server
            .reload_certificates()
            .expect_err("an error")
            .message
            .contains("tls_key")
    );
    assert!(
        log_in_encrypted(&server, authority.client(None), "root")
            .await
            .is_ok()
    );
    server.stop().await;

    // A key that does not read is no reason to go on in clear.
    let error = Server::start(&with_tls(&|_| {}), Env::system())
        .await
        .expect_err("does not start");
    assert!(error.message.contains("tls_key"), "{error}");
    authority.sign("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let server = Server::start(&with_tls(&|s| s.tls_required = true), Env::system())
        .await
        .expect("starts");
    let error = connect(server.addr(), "root", "")
        .await
        .expect_err("turned away");
    assert_eq!(error.code().map(SqlState::code), Some("28000"), "{error}");
    assert!(
        log_in_encrypted(&server, authority.client(None), "root")
            .await
            .is_ok()
    );
    server.stop().await;

    // Certificates of clients: there must be one, and it must be made out to the user.
    let ca = dir.path().join("ca.pem");
    let server = Server::start(
        &with_tls(&|s| s.tls_client_ca = Some(ca.clone())),
        Env::system(),
    )
    .await
    .expect("starts");
    assert!(
        log_in_encrypted(&server, authority.client(None), "root")
            .await
            .is_err()
    );
    assert_eq!(
        log_in_encrypted(&server, authority.client(Some("root")), "root")
            .await
            .expect("logs in"),
        [b'R', 0, 0, 0, 0]
    );
    let refused = log_in_encrypted(&server, authority.client(Some("root")), "ana")
        .await
        .expect("is told");
    assert!(
        refused[0] == b'E' && refused.windows(5).any(|w| w == b"28000"),
        "{}",
        String::from_utf8_lossy(&refused)
    );
    assert!(connect(server.addr(), "root", "").await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_once_are_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_in(dir, |settings| {
        settings.logins_max = 20;
        settings.logins_per_address_max = 10;
        settings.connections_max = 3;
        settings.authentication_timeout_seconds = 1;
    })
    .await;
    let addr = server.server.addr();
    let root = server.client().await;
    // Who sends a byte and no more holds one of the places for logins, for the time of one.
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut socket = TcpStream::connect(addr).await.expect("connects");
        socket.write_all(&[0]).await.expect("sends");
        slow.push(socket);
    }
    // A client that is in is not held up by them, and another is told why it must wait.
    assert_eq!(value(&root, "SELECT 1").await, "1");
    let crowded = tokio::time::timeout(Duration::from_secs(20), async {
        while connect(addr, "root", "").await.is_ok() {}
    });
    crowded.await.expect("somebody is turned away");
    for mut socket in slow {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
    }
    let freed = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Ok(client) = connect(addr, "root", "").await {
                return client;
            }
        }
    });
    let second = freed.await.expect("the places are free again");
    // More than there are places: 53300, and the others go on.
    let third = connect(addr, "root", "").await.expect("logs in");
    let error = connect(addr, "root", "").await.expect_err("no place");
    assert_eq!(error.code().map(SqlState::code), Some("53300"), "{error}");
    drop((second, third));
    // Ten thousand that come and go.
    for _ in 0..100 {
        let sockets = futures::future::join_all((0..100).map(|_| TcpStream::connect(addr))).await;
        drop(sockets);
    }
    let freed = tokio::time::timeout(Duration::from_secs(20), async {
        while connect(addr, "root", "").await.is_err() {}
    });
    freed.await.expect("there is room again");
    assert_eq!(value(&root, "SELECT 1").await, "1");
}
