//! What passwords are checked against: SCRAM-SHA-256.

use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

use crate::env::Env;
use crate::store::PasswordVerifier;

/// The user that always exists and always is an administrator.
pub const ROOT: &str = "root";

/// Rounds of PBKDF2, as PostgreSQL's default.
const SCRAM_ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// What a password will be checked against, as RFC 5802 makes it.
pub fn password_verifier(password: &str, env: &Env) -> PasswordVerifier {
    let mut salt = vec![0; SALT_BYTES];
    env.ids.fill(&mut salt);
    let iterations = NonZeroU32::new(SCRAM_ITERATIONS).expect("not zero");
    let normal = stringprep::saslprep(password).unwrap_or(password.into());
    let mut salted = [0; KEY_BYTES];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        &salt,
        normal.as_bytes(),
        &mut salted,
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&key, b"Client Key");
    PasswordVerifier {
        salt,
        iterations: SCRAM_ITERATIONS,
        stored_key: digest::digest(&digest::SHA256, client_key.as_ref())
            .as_ref()
            .to_vec(),
        server_key: hmac::sign(&key, b"Server Key").as_ref().to_vec(),
    }
}

/// What users that do not exist are asked by: the same salt for a name at each try, as a user who
/// is there has it, and one that nobody can tell from a real one without the server's secret.
#[derive(Debug)]
pub struct MockSalts(hmac::Key);

impl MockSalts {
    /// Salts that follow from a secret, so that they outlive a restart.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A verifier that no password satisfies.
    pub fn verifier(&self, name: &str, env: &Env) -> PasswordVerifier {
        let salt = hmac::sign(&self.0, name.as_bytes());
        let mut keys = [0; 2 * KEY_BYTES];
        env.ids.fill(&mut keys);
        let (stored_key, server_key) = keys.split_at(KEY_BYTES);
        PasswordVerifier {
            salt: salt.as_ref()[..SALT_BYTES].to_vec(),
            iterations: SCRAM_ITERATIONS,
            stored_key: stored_key.to_vec(),
            server_key: server_key.to_vec(),
        }
    }
}
