//! Encryption of a repository (docs/repository-format.md, "Encryption"): AES-256-GCM by ring, in
//! segments, with a key of its own for every object. Names are the results of keyed functions, so
//! they tell nothing, and the same file still has the same name.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::names::Sha256;

/// Plain bytes of one segment; the last one may be shorter.
const SEGMENT_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// What every encrypted object begins with, before its salt.
pub(super) const MAGIC: &[u8; 4] = b"SKE1";
const HEADER_BYTES: usize = MAGIC.len() + KEY_BYTES;

/// How a repository is encrypted; stands in `__repo_info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    pub algorithm: Algorithm,
    /// The repository's key under the user's: nonce and ciphertext, lower-case hex.
    pub wrapped_key: String,
    /// How often another user's key took the place of the last.
    #[serde(default)]
    pub generation: u64,
    /// Tells damage from another key: a SHA-256, lower-case hex. Missing where an earlier version
    /// has written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

impl Encryption {
    fn new(repository_id: &str, wrapped_key: String, generation: u64) -> Self {
        let mut encryption = Self {
            algorithm: Algorithm::Aes256Gcm,
            wrapped_key,
            generation,
            check: None,
        };
        encryption.check = Some(encryption.digest(repository_id));
        encryption
    }

    fn digest(&self, repository_id: &str) -> String {
        let Algorithm::Aes256Gcm = self.algorithm;
        let said = format!(
            "{repository_id} aes256-gcm {} {}",
            self.wrapped_key, self.generation
        );
        hex::encode(ring::digest::digest(&SHA256, said.as_bytes()))
    }

    /// Whether it is not what was written of a repository with this id.
    pub fn is_damaged(&self, repository_id: &str) -> bool {
        let check = self.check.as_ref();
        check.is_some_and(|check| *check != self.digest(repository_id))
    }
}

/// The names are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    #[serde(rename = "aes256-gcm")]
    Aes256Gcm,
}

/// The key that a user gives; it encrypts nothing but the repository's own.
#[derive(Clone, PartialEq, Eq)]
pub struct UserKey([u8; KEY_BYTES]);

impl std::fmt::Debug for UserKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserKey(…)")
    }
}

/// A length that HKDF is asked for.
struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

fn expanded(from: &Prk, info: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    from.expand(info, Bytes32)
        .and_then(|okm| okm.fill(&mut key))
        .expect("32 bytes are not too many");
    key
}

fn aead(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key"))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::internal("the system has no randomness"))?;
    Ok(bytes)
}

impl UserKey {
    /// 64 hex digits. 22023 for anything else, without saying what.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut key = [0; KEY_BYTES];
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| {
            let message = "\"encryption.key\" is no key";
            Error::new(ErrorKind::InvalidParameter, message)
                .hint("It is 64 hex digits; openssl rand -hex 32 makes one.")
        })?;
        Ok(Self(key))
    }

    fn wrapping(&self, repository_id: &str) -> LessSafeKey {
        let prk = Salt::new(HKDF_SHA256, repository_id.as_bytes()).extract(&self.0);
        aead(&expanded(&prk, &[b"starkeep wrapping key"]))
    }

    fn wrap(
        &self,
        repository_id: &str,
        key: &[u8; KEY_BYTES],
        generation: u64,
    ) -> Result<Encryption, Error> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        let mut sealed = key.to_vec();
        self.wrapping(repository_id)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(repository_id.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| Error::internal("a key could not be encrypted"))?;
        let wrapped_key = format!("{}{}", hex::encode(nonce), hex::encode(sealed));
        Ok(Encryption::new(repository_id, wrapped_key, generation))
    }

    fn unwrap(
        &self,
        repository_id: &str,
        encryption: &Encryption,
    ) -> Result<[u8; KEY_BYTES], Error> {
        let Algorithm::Aes256Gcm = encryption.algorithm;
        let damaged = || {
            let message = "\"__repo_info\" is damaged: its key does not read";
            Error::new(ErrorKind::Corrupted, message)
        };
        let bytes = hex::decode(&encryption.wrapped_key).map_err(|_| damaged())?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut sealed = sealed.to_vec();
        let opened = self
            .wrapping(repository_id)
            .open_in_place(nonce, Aad::from(repository_id.as_bytes()), &mut sealed)
            .map_err(|_| {
                let message = "\"encryption.key\" is not the key of this repository";
                Error::new(ErrorKind::InvalidAuthorization, message).hint(
                    "ALTER REPOSITORY … SET PROPERTIES (\"encryption.key\" = \"…\") gives another.",
                )
            })?;
        <[u8; KEY_BYTES]>::try_from(&*opened).map_err(|_| damaged())
    }

    /// A new repository's encryption, with a key that nobody else has.
    pub fn encryption(&self, repository_id: &str) -> Result<Encryption, Error> {
        self.wrap(repository_id, &random()?, 0)
    }

    /// The same repository's under another key.
    pub fn rewrapped(
        &self,
        repository_id: &str,
        encryption: &Encryption,
        by: &Self,
    ) -> Result<Encryption, Error> {
        let key = self.unwrap(repository_id, encryption)?;
        by.wrap(repository_id, &key, encryption.generation + 1)
    }

    /// What reads and writes a repository. 28000 if this is not its key.
    pub fn open(&self, repository_id: &str, encryption: &Encryption) -> Result<Arc<Cipher>, Error> {
        Ok(Arc::new(Cipher::new(
            &self.unwrap(repository_id, encryption)?,
        )))
    }
}

/// What encrypts and names the objects of one repository.
pub struct Cipher {
    objects: [u8; KEY_BYTES],
    files: hmac::Key,
    labels: LessSafeKey,
    label_nonces: hmac::Key,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(…)")
    }
}

impl Cipher {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        let prk = Salt::new(HKDF_SHA256, b"starkeep repository").extract(key);
        let mac = |info: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &expanded(&prk, &[info]));
        Self {
            objects: expanded(&prk, &[b"objects"]),
            files: mac(b"file names"),
            labels: aead(&expanded(&prk, &[b"labels"])),
            label_nonces: mac(b"label nonces"),
        }
    }

    /// What a data file is called, instead of by its hash.
    pub fn file_name(&self, sha256: &Sha256) -> Sha256 {
        let tag = hmac::sign(&self.files, sha256.as_bytes());
        Sha256::new(hex::encode(tag)).expect("32 bytes in hex")
    }

    /// What a label is called. The nonce follows from the label alone: the same label is the same
    /// name, and no two have one nonce.
    pub fn label_name(&self, label: &str) -> String {
        let tag = hmac::sign(&self.label_nonces, label.as_bytes());
        let mut name = tag.as_ref()[..NONCE_BYTES].to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&name).expect("12 bytes");
        let mut sealed = label.as_bytes().to_vec();
        self.labels
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed)
            .expect("a label is short");
        name.extend(sealed);
        URL_SAFE_NO_PAD.encode(name)
    }

    /// The label of a name; nothing if it is none.
    pub fn label_of(&self, name: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(name).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let label = self
            .labels
            .open_in_place(nonce, Aad::empty(), &mut sealed)
            .ok()?;
        String::from_utf8(label.to_vec()).ok()
    }

    fn object_key(&self, salt: &[u8; KEY_BYTES], name: &str) -> LessSafeKey {
        let prk = Salt::new(HKDF_SHA256, salt).extract(&self.objects);
        aead(&expanded(&prk, &[b"object ", name.as_bytes()]))
    }

    /// Encrypts an object of this name, from the repository's directory on.
    pub fn sealer(&self, name: &str) -> Result<Sealer, Error> {
        let salt: [u8; KEY_BYTES] = random()?;
        let mut ready = MAGIC.to_vec();
        ready.extend(salt);
        Ok(Sealer {
            key: self.object_key(&salt, name),
            segment: 0,
            pending: Vec::with_capacity(SEGMENT_BYTES),
            ready,
        })
    }

    pub fn opener(self: &Arc<Self>, name: &str) -> Opener {
        Opener {
            cipher: self.clone(),
            name: name.to_owned(),
            key: None,
            segment: 0,
            pending: Vec::new(),
        }
    }

    /// A small object as a whole.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut sealer = self.sealer(name)?;
        sealer
            .ready
            .reserve(Self::stored_bytes(plain.len() as u64) as usize);
        sealer.push(plain)?;
        sealer.finish()
    }

    pub fn open(self: &Arc<Self>, name: &str, stored: &[u8]) -> Result<Vec<u8>, Error> {
        let mut opener = self.opener(name);
        let mut plain = opener.push(stored)?;
        plain.extend(opener.finish()?);
        Ok(plain)
    }

    /// How long an object of so many plain bytes is.
    pub fn stored_bytes(plain: u64) -> u64 {
        let segments = plain.div_ceil(SEGMENT_BYTES as u64).max(1);
        HEADER_BYTES as u64 + plain + segments * TAG_BYTES as u64
    }
}

/// A segment's nonce: its number, and whether it is the last, so that none can be left out, put
/// elsewhere or cut off.
fn nonce_of(segment: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; NONCE_BYTES];
    nonce[3] = u8::from(is_last);
    nonce[4..].copy_from_slice(&segment.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Encrypts one object as its bytes come.
pub struct Sealer {
    key: LessSafeKey,
    segment: u64,
    /// Plain bytes of the segment that is not full yet, or perhaps the last.
    pending: Vec<u8>,
    /// What was encrypted and not taken yet.
    ready: Vec<u8>,
}

impl Sealer {
    fn seal(&mut self, is_last: bool) -> Result<(), Error> {
        let nonce = nonce_of(self.segment, is_last);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut self.pending)
            .map_err(|_| Error::internal("an object could not be encrypted"))?;
        self.ready.append(&mut self.pending);
        self.ready.extend(tag.as_ref());
        self.segment += 1;
        Ok(())
    }

    pub fn push(&mut self, mut plain: &[u8]) -> Result<(), Error> {
        while !plain.is_empty() {
            if self.pending.len() == SEGMENT_BYTES {
                self.seal(false)?;
            }
            let room = (SEGMENT_BYTES - self.pending.len()).min(plain.len());
            self.pending.extend_from_slice(&plain[..room]);
            plain = &plain[room..];
        }
        Ok(())
    }

    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// What is left, with the last segment.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.seal(true)?;
        Ok(self.ready)
    }
}

/// Decrypts one object as its bytes come. XX001 for what was not encrypted under its name.
pub struct Opener {
    cipher: Arc<Cipher>,
    name: String,
    /// Once the header was read.
    key: Option<LessSafeKey>,
    segment: u64,
    pending: Vec<u8>,
}

impl Opener {
    fn damaged(&self, why: &str) -> Error {
        let message = format!("\"{}\" is damaged: {why}", self.name);
        Error::new(ErrorKind::Corrupted, message)
    }

    fn open(&mut self, segment: &mut [u8], is_last: bool) -> Result<usize, Error> {
        let key = self
            .key
            .as_ref()
            .ok_or_else(|| self.damaged("it is too short"))?;
        let nonce = nonce_of(self.segment, is_last);
        let opened = key.open_in_place(nonce, Aad::empty(), segment);
        let length = opened
            .map_err(|_| self.damaged("it does not decrypt"))?
            .len();
        self.segment += 1;
        Ok(length)
    }

    /// The plain bytes that are certain by now.
    pub fn push(&mut self, stored: &[u8]) -> Result<Vec<u8>, Error> {
        self.pending.extend_from_slice(stored);
        if self.key.is_none() {
            if self.pending.len() < HEADER_BYTES {
                return Ok(Vec::new());
            }
            let header: Vec<u8> = self.pending.drain(..HEADER_BYTES).collect();
            let (magic, salt) = header.split_at(MAGIC.len());
            if magic != MAGIC {
                return Err(self.damaged("it is not encrypted"));
            }
            let salt = salt.try_into().expect("what is left of the header");
            self.key = Some(self.cipher.object_key(&salt, &self.name));
        }
        // The last segment is known only at the end.
        let whole = SEGMENT_BYTES + TAG_BYTES;
        let count = self.pending.len().saturating_sub(1) / whole;
        let mut plain = Vec::with_capacity(count * SEGMENT_BYTES);
        let rest = self.pending.split_off(count * whole);
        let mut segments = std::mem::replace(&mut self.pending, rest);
        for segment in segments.chunks_exact_mut(whole) {
            let length = self.open(segment, false)?;
            plain.extend_from_slice(&segment[..length]);
        }
        Ok(plain)
    }

    /// The last plain bytes.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        let mut last = std::mem::take(&mut self.pending);
        let length = self.open(&mut last, true)?;
        last.truncate(length);
        Ok(last)
    }
}

/// The bytes of a data file on their way, to or from an encrypted repository or not. What is hashed
/// are always the plain ones.
pub enum Coding {
    Plain,
    Seal(Box<Sealer>),
    Open(Box<Opener>),
}

/// The hash of plain bytes, and how many there were.
pub struct PlainDigest {
    context: Context,
    pub length: u64,
}

impl Default for PlainDigest {
    fn default() -> Self {
        Self {
            context: Context::new(&SHA256),
            length: 0,
        }
    }
}

impl PlainDigest {
    fn update(&mut self, plain: &[u8]) {
        self.context.update(plain);
        self.length += plain.len() as u64;
    }

    /// Lower-case hex.
    pub fn finish(self) -> String {
        hex::encode(self.context.finish())
    }
}

impl Coding {
    /// What comes of the next bytes.
    pub fn pass<'b>(
        &mut self,
        bytes: &'b [u8],
        digest: &mut PlainDigest,
    ) -> Result<Cow<'b, [u8]>, Error> {
        match self {
            Self::Plain => {
                digest.update(bytes);
                Ok(Cow::Borrowed(bytes))
            }
            Self::Seal(sealer) => {
                digest.update(bytes);
                sealer.push(bytes)?;
                Ok(Cow::Owned(sealer.take()))
            }
            Self::Open(opener) => {
                let plain = opener.push(bytes)?;
                digest.update(&plain);
                Ok(Cow::Owned(plain))
            }
        }
    }

    /// What comes at the end.
    pub fn finish(self, digest: &mut PlainDigest) -> Result<Vec<u8>, Error> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Seal(sealer) => sealer.finish(),
            Self::Open(opener) => {
                let plain = opener.finish()?;
                digest.update(&plain);
                Ok(plain)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher() -> Arc<Cipher> {
        Arc::new(Cipher::new(&[7; KEY_BYTES]))
    }

    #[test]
    fn objects_of_any_length_come_back() {
        let cipher = cipher();
        for length in [
            0,
            1,
            SEGMENT_BYTES - 1,
            SEGMENT_BYTES,
            SEGMENT_BYTES + 1,
            200_000,
        ] {
            let plain: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let stored = cipher.seal("a", &plain).expect("sealed");
            assert_eq!(stored.len() as u64, Cipher::stored_bytes(length as u64));
            assert_eq!(
                cipher.open("a", &stored).expect("opened"),
                plain,
                "{length}"
            );
            // As they come over a network, too.
            let mut opener = cipher.opener("a");
            let mut again = Vec::new();
            for piece in stored.chunks(1000) {
                again.extend(opener.push(piece).expect("opened"));
            }
            again.extend(opener.finish().expect("opened"));
            assert_eq!(again, plain, "{length}");
        }
    }

    #[test]
    fn tampered_objects_do_not_open() {
        let cipher = cipher();
        let plain = vec![1; 3 * SEGMENT_BYTES];
        let stored = cipher.seal("a", &plain).expect("sealed");
        let refused = |name: &str, stored: &[u8]| {
            let error = cipher.open(name, stored).expect_err("refused");
            assert_eq!(error.kind, ErrorKind::Corrupted);
        };
        refused("b", &stored);
        for end in [
            0,
            10,
            HEADER_BYTES,
            HEADER_BYTES + SEGMENT_BYTES + TAG_BYTES,
            stored.len() - 1,
        ] {
            refused("a", &stored[..end]);
        }
        for place in [0, 5, HEADER_BYTES, stored.len() / 2, stored.len() - 1] {
            let mut changed = stored.clone();
            changed[place] ^= 1;
            refused("a", &changed);
        }
        let whole = SEGMENT_BYTES + TAG_BYTES;
        let mut swapped = stored.clone();
        swapped[HEADER_BYTES..HEADER_BYTES + 2 * whole].rotate_left(whole);
        refused("a", &swapped);
        let mut longer = stored.clone();
        longer.extend_from_slice(&stored[HEADER_BYTES..]);
        refused("a", &longer);
        // The same twice is not alike.
        assert_ne!(stored, cipher.seal("a", &plain).expect("sealed"));
    }

    #[test]
    fn names_tell_nothing_and_stay_the_same() {
        let (cipher, other) = (cipher(), Cipher::new(&[8; KEY_BYTES]));
        for label in ["nightly", "ünï 50%", &"x".repeat(128)] {
            let name = cipher.label_name(label);
            assert_eq!(name, cipher.label_name(label));
            assert_eq!(cipher.label_of(&name).as_deref(), Some(label));
            assert_eq!(other.label_of(&name), None);
            assert!(!name.contains(label));
        }
        for name in ["", "nightly", "AAAA", "%"] {
            assert_eq!(cipher.label_of(name), None);
        }
        let sha256 = Sha256::new("ab".repeat(32)).expect("valid");
        assert_ne!(cipher.file_name(&sha256), sha256);
        assert_ne!(cipher.file_name(&sha256), other.file_name(&sha256));
    }

    #[test]
    fn keys_wrap_and_are_told_apart() {
        let key = |digit: &str| UserKey::parse(&digit.repeat(64)).expect("a key");
        let (first, second) = (key("1"), key("2"));
        let encryption = first.encryption("id").expect("made");
        let stored = first
            .open("id", &encryption)
            .and_then(|cipher| cipher.seal("a", b"x"))
            .expect("sealed");
        let wrong = second.open("id", &encryption).expect_err("another key");
        assert_eq!(wrong.kind, ErrorKind::InvalidAuthorization);
        assert!(first.open("other", &encryption).is_err());
        let rotated = first
            .rewrapped("id", &encryption, &second)
            .expect("rotated");
        assert!(first.open("id", &rotated).is_err());
        let cipher = second.open("id", &rotated).expect("the new key");
        assert_eq!(cipher.open("a", &stored).expect("opened"), b"x");
        for bad in ["", "12", &"g".repeat(64), &"1".repeat(66)] {
            assert_eq!(
                UserKey::parse(bad).expect_err(bad).kind,
                ErrorKind::InvalidParameter
            );
        }
    }
}
