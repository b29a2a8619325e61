//! From the first byte to the first ReadyForQuery. Every error here ends the connection.

use std::collections::BTreeMap;

use bytes::Bytes;
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth};
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus,
    PasswordMessageFamily, SecretKey, Startup,
};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion};

use super::connection::Connection;
use super::failure::End;
use super::tls::common_name;
use crate::error::{Error, ErrorKind};
use crate::names::UserName;
use crate::session::{Client, Session};
use crate::store::{PasswordVerifier, UserRecord};

const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

fn fatal(kind: ErrorKind, message: impl Into<String>) -> End {
    End::Fatal(Error::new(kind, message))
}

fn wrong_password(user: &str) -> End {
    fatal(
        ErrorKind::InvalidPassword,
        format!("password authentication failed for user \"{user}\""),
    )
}

fn secret_bytes(key: &SecretKey) -> Vec<u8> {
    match key {
        SecretKey::I32(n) => n.to_be_bytes().to_vec(),
        SecretKey::Bytes(bytes) => bytes.to_vec(),
    }
}

impl Connection {
    /// Logs a client in. Whatever goes wrong ends the connection.
    pub async fn log_in(&mut self) -> Result<Session, End> {
        let startup = self.startup_packet().await?;
        let parameters = start_parameters(&startup)?;
        let user = parameters.get("user").cloned().unwrap_or_default();
        let user = UserName::new(user).map_err(|_| {
            fatal(
                ErrorKind::InvalidAuthorization,
                "no PostgreSQL user name specified in startup packet",
            )
        })?;
        let version = self.settle_version(&startup)?;
        if self.listener.settings.tls_required && !self.framed.get_ref().is_encrypted() {
            return Err(End::Fatal(
                Error::new(
                    ErrorKind::InvalidAuthorization,
                    "this server takes encrypted connections only",
                )
                .hint("Connect with sslmode=require, or better verify-full."),
            ));
        }
        self.authenticate(&user).await?;
        self.put(PgWireBackendMessage::Authentication(Authentication::Ok))?;
        let client = Client {
            user,
            database: parameters.get("database").cloned(),
            addr: self.addr.ip().to_string(),
            pid: self.pid,
        };
        let session = Session::begin(self.gateway.clone(), client, &parameters)
            .await
            .map_err(End::Fatal)?;
        for (name, value) in session.reports() {
            self.put(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(
                name, value,
            )))?;
        }
        let mut secret = vec![
            0;
            if version == ProtocolVersion::PROTOCOL3_2 {
                32
            } else {
                4
            }
        ];
        self.gateway.env.ids.fill(&mut secret);
        self.terminated = self.gateway.connections.register(self.pid, secret.clone());
        let key = match <[u8; 4]>::try_from(secret.as_slice()) {
            Ok(four) => SecretKey::I32(i32::from_be_bytes(four)),
            Err(_) => SecretKey::Bytes(Bytes::from(secret)),
        };
        self.put(PgWireBackendMessage::BackendKeyData(BackendKeyData::new(
            self.pid, key,
        )))?;
        Ok(session)
    }

    /// The start-up packet. A CancelRequest is carried out and not answered.
    pub async fn startup_packet(&mut self) -> Result<Startup, End> {
        match self.next().await? {
            PgWireFrontendMessage::CancelRequest(cancel) => {
                self.gateway
                    .connections
                    .cancel(cancel.pid, &secret_bytes(&cancel.secret_key));
                Err(End::Closed)
            }
            PgWireFrontendMessage::Startup(startup) => {
                self.framed
                    .codec_mut()
                    .inner
                    .client_info
                    .set_state(PgWireConnectionState::AuthenticationInProgress);
                Ok(startup)
            }
            _ => Err(fatal(ErrorKind::Protocol, "invalid startup packet")),
        }
    }

    /// Settles on a protocol version: 3.0 and 3.2 are spoken, newer 3.x clients are told so.
    fn settle_version(&mut self, startup: &Startup) -> Result<ProtocolVersion, End> {
        let (major, minor) = (startup.protocol_number_major, startup.protocol_number_minor);
        let unknown: Vec<String> = startup
            .parameters
            .keys()
            .filter(|k| k.starts_with("_pq_."))
            .cloned()
            .collect();
        if major != 3 {
            return Err(fatal(
                ErrorKind::Protocol,
                format!(
                    "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
                ),
            ));
        }
        let version = if minor >= 2 {
            ProtocolVersion::PROTOCOL3_2
        } else {
            ProtocolVersion::PROTOCOL3_0
        };
        if ProtocolVersion::from_version_number(major, minor).is_none() || !unknown.is_empty() {
            let newest: i32 = ProtocolVersion::PROTOCOL3_2.into();
            self.put(PgWireBackendMessage::NegotiateProtocolVersion(
                NegotiateProtocolVersion::new(newest, unknown),
            ))?;
        }
        self.framed
            .codec_mut()
            .inner
            .client_info
            .set_protocol_version(version);
        Ok(version)
    }

    /// A user with a password proves to know it; one without comes from this machine. A user that
    /// does not exist is asked all the same, so that nobody learns who does.
    async fn authenticate(&mut self, user: &UserName) -> Result<(), End> {
        let known: Option<UserRecord> = self.gateway.store.user(user).await.map_err(End::Fatal)?;
        let certified = self.certified(user)?;
        match &known {
            // The certificate is the proof.
            Some(UserRecord { verifier: None, .. }) if certified => return Ok(()),
            Some(UserRecord { verifier: None, .. }) if self.addr.ip().is_loopback() => {
                return Ok(());
            }
            // Told to the log alone: the client must not learn who exists.
            Some(UserRecord { verifier: None, .. }) => {
                tracing::info!(client = %self.addr, %user, "a user without a password may connect from loopback only");
            }
            _ => {}
        }
        let known = known.and_then(|u| u.verifier);
        let may_prove = known.is_some();
        let verifier = known.unwrap_or_else(|| {
            self.gateway
                .mock_salts
                .verifier(user.as_str(), &self.gateway.env)
        });
        let proved = self.scram(user.as_str(), verifier).await?;
        if may_prove && proved {
            return Ok(());
        }
        let now = self.gateway.env.now();
        if let Some(delay) = self.listener.addresses.failed(self.addr.ip(), now) {
            self.gateway.env.clock.sleep(delay).await;
        }
        Err(wrong_password(user.as_str()))
    }

    /// Whether the client has shown a certificate for this user. Where certificates are asked for,
    /// there is no way around it.
    fn certified(&self, user: &UserName) -> Result<bool, End> {
        if !self
            .listener
            .tls
            .as_ref()
            .is_some_and(|tls| tls.wants_client_certificates())
        {
            return Ok(false);
        }
        let shown = self
            .framed
            .get_ref()
            .client_certificate()
            .and_then(|der| common_name(&der));
        match shown {
            Some(name) if name == user.as_str() => Ok(true),
            _ => Err(fatal(
                ErrorKind::InvalidAuthorization,
                format!("certificate authentication failed for user \"{user}\""),
            )),
        }
    }

    async fn password_message(&mut self) -> Result<PasswordMessageFamily, End> {
        match self.next().await? {
            PgWireFrontendMessage::PasswordMessageFamily(message) => Ok(message),
            _ => Err(fatal(ErrorKind::Protocol, "expected a SASL response")),
        }
    }

    /// RFC 5802; `false` if the proof is wrong.
    async fn scram(&mut self, user: &str, verifier: PasswordVerifier) -> Result<bool, End> {
        let broken = |_| fatal(ErrorKind::Protocol, "malformed SCRAM message");
        let mut server = ScramServerAuth::new();
        // Only what runs under TLS can be bound to it.
        let chain = self
            .tls
            .as_ref()
            .filter(|_| self.framed.get_ref().is_encrypted())
            .map(|tls| tls.chain.clone());
        let binds = match chain {
            Some(chain) => match server.configure_certificate(&chain) {
                Ok(()) => true,
                // A signature algorithm without a hash to bind to, such as Ed25519: PostgreSQL
                // cannot bind to it either.
                Err(error) => {
                    tracing::debug!(%error, "no channel binding with this certificate");
                    false
                }
            },
            None => false,
        };
        let offered: Vec<String> = if binds {
            vec![SCRAM_PLUS.into(), SCRAM.into()]
        } else {
            vec![SCRAM.into()]
        };
        self.put(PgWireBackendMessage::Authentication(Authentication::SASL(
            offered.clone(),
        )))?;
        self.flush().await?;
        let first = self.password_message().await?;
        if matches!(&first, PasswordMessageFamily::Raw(body) if !is_sasl_initial_response(body)) {
            return Err(fatal(ErrorKind::Protocol, "malformed SASL response"));
        }
        let first = first.into_sasl_initial_response().map_err(broken)?;
        if !offered.contains(&first.auth_method) {
            return Err(fatal(
                ErrorKind::Protocol,
                format!(
                    "client selected an invalid SASL mechanism \"{}\"",
                    first.auth_method
                ),
            ));
        }
        let secret = ScramSecret::Verifier {
            salt: verifier.salt,
            iterations: verifier.iterations as usize,
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
        };
        let client_first = first.data.unwrap_or_default();
        // The mechanism and the binding that the message speaks of must be the same.
        if client_first.starts_with(b"p=") != (first.auth_method == SCRAM_PLUS) {
            return Err(fatal(ErrorKind::Protocol, "malformed SCRAM message"));
        }
        let (server_first, waiting) = server
            .on_client_first_message_with_secret(&client_first, secret)
            .map_err(broken)?;
        self.put(PgWireBackendMessage::Authentication(
            Authentication::SASLContinue(Bytes::from(server_first)),
        ))?;
        self.flush().await?;
        let last = self
            .password_message()
            .await?
            .into_sasl_response()
            .map_err(broken)?;
        match waiting.on_client_final_message(&last.data) {
            Ok(server_final) => {
                self.put(PgWireBackendMessage::Authentication(
                    Authentication::SASLFinal(Bytes::from(server_final)),
                ))?;
                Ok(true)
            }
            Err(e) => {
                tracing::info!(client = %self.addr, user, error = %e, "a login failed");
                Ok(false)
            }
        }
    }
}

/// A mechanism's name, a length, and that many bytes: what pgwire reads without looking.
fn is_sasl_initial_response(body: &[u8]) -> bool {
    let Some(end) = body.iter().position(|b| *b == 0) else {
        return false;
    };
    let Some(length) = body
        .get(end + 1..end + 5)
        .and_then(|l| <[u8; 4]>::try_from(l).ok())
        .map(i32::from_be_bytes)
    else {
        return false;
    };
    usize::try_from(length).map_or(length == -1, |length| body.len() - end - 5 == length)
}

/// The parameters of the start-up packet, those in `options` (`-c name=value`) included.
fn start_parameters(startup: &Startup) -> Result<BTreeMap<String, String>, End> {
    let mut parameters = startup.parameters.clone();
    let options = parameters.remove("options").unwrap_or_default();
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let setting = match word {
            "-c" => words.next(),
            word => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")),
        };
        let Some((name, value)) = setting.and_then(|s| s.split_once('=')) else {
            return Err(fatal(
                ErrorKind::Protocol,
                format!("invalid command-line argument for server process: {word}"),
            ));
        };
        parameters.insert(name.to_owned(), value.to_owned());
    }
    Ok(parameters)
}
