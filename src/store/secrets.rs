//! Encryption of what must not be read from the metadata file: AES-256-GCM, a fresh nonce for every
//! text.
//!
//! The key is a file beside the data, readable by its owner alone, or comes from
//! `STARKEEP_SECRET_KEY`.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::env::Env;
use crate::error::{Error, ErrorKind};

const KEY_BYTES: usize = 32;

/// The key that repository properties are encrypted with.
#[derive(Clone)]
pub struct SecretKey([u8; KEY_BYTES]);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// A key from 64 hex digits; the error names the setting and does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = hex::decode(text.trim())
            .ok()
            .and_then(|b| b.try_into().ok());
        bytes.map(Self).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "secret_key is not 64 hex digits")
                .hint("Make one with: openssl rand -hex 32")
        })
    }

    /// The key in this file, made if it does not exist. A file that others may read is refused.
    pub fn load_or_create(path: &Path, env: &Env) -> Result<Self, Error> {
        match fs::metadata(path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    format!("the key file \"{}\" can be read by others", path.display()),
                )
                .hint(format!("chmod 600 \"{}\"", path.display())));
            }
            Ok(_) => {
                let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
                return Self::parse(&text)
                    .map_err(|e| e.detail(format!("in \"{}\"", path.display())));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("look at", path, e)),
        }
        let mut key = [0; KEY_BYTES];
        env.ids.fill(&mut key);
        // Whole or not at all: a temporary file (0600 from its birth), synced, then named.
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)
            .map_err(|e| Error::io("create a file in", dir, e))?;
        file.write_all(hex::encode(key).as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(|e| Error::io("write", path, e))?;
        file.persist_noclobber(path)
            .map_err(|e| Error::io("create", path, e.error))?;
        fs::File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(|e| Error::io("sync", dir, e))?;
        Ok(Self(key))
    }

    /// A secret for another purpose, which tells nothing of the key.
    pub fn derive(&self, purpose: &str) -> Vec<u8> {
        hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &self.0),
            purpose.as_bytes(),
        )
        .as_ref()
        .to_vec()
    }

    /// A key for one test or one run in memory.
    pub fn random(env: &Env) -> Self {
        let mut key = [0; KEY_BYTES];
        env.ids.fill(&mut key);
        Self(key)
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, &self.0).expect("the key has the cipher's length"),
        )
    }

    /// Encrypts a text; `context` is bound to it and must be given again.
    pub fn seal(&self, env: &Env, context: &str, text: &str) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        env.ids.fill(&mut nonce);
        let mut body = text.as_bytes().to_vec();
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut body,
            )
            .expect("a text far below the cipher's limit");
        [&nonce[..], &body].concat()
    }

    /// Decrypts what [`Self::seal`] made; the error is XX001 and says nothing of the content.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<String, Error> {
        let wrong = || {
            Error::new(
                ErrorKind::Corrupted,
                format!("the stored properties of \"{context}\" cannot be decrypted"),
            )
            .hint("Is this the key file (or STARKEEP_SECRET_KEY) that they were stored with?")
        };
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut body = body.to_vec();
        let text = self
            .cipher()
            .open_in_place(nonce, Aad::from(context), &mut body)
            .map_err(|_| wrong())?;
        String::from_utf8(text.to_vec()).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_values_need_key_and_context() {
        let env = Env::system();
        let key = SecretKey::random(&env);
        let sealed = key.seal(&env, "r", "hush");
        assert!(!sealed.windows(4).any(|w| w == b"hush"));
        assert_eq!(key.open("r", &sealed).expect("opens"), "hush");
        assert!(key.open("other", &sealed).is_err());
        assert!(SecretKey::random(&env).open("r", &sealed).is_err());
        assert!(key.open("r", &sealed[..5]).is_err());
    }

    #[test]
    fn the_key_file_is_the_owners_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret.key");
        let env = Env::system();
        let key = SecretKey::load_or_create(&path, &env).expect("made");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            SecretKey::load_or_create(&path, &env).expect("read").0,
            key.0
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert_eq!(
            SecretKey::load_or_create(&path, &env)
                .expect_err("refused")
                .kind,
            ErrorKind::Configuration
        );
    }
}
