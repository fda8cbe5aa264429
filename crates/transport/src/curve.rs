//! CURVE: keys, and who may connect. A server always has an allow-list; the library alone would admit any key.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use omq_tokio::{
    CurveKeypair, CurvePublicKey, CurveSecretKey, CurveServerOptions, MechanismPeerInfo, Options,
};

use crate::error::{HexError, KeyError};

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

/// A public key and its secret.
#[derive(Clone)]
pub struct KeyPair(CurveKeypair);

/// How a [`Router`](crate::Router) knows its peers: its own keys, and the public keys it admits.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The router's own.
    pub own: KeyPair,
    /// Who may connect. Empty admits nobody.
    pub allowed: Allowed,
}

/// The public keys that may connect: a handle to one list, which can be changed while a router asks it.
///
/// A key is looked up once, when its holder connects. Taking it off the list ends no connection: whoever does that
/// closes those that are open with it, and knows them by the key in [`Event::Opened`](crate::Event::Opened).
#[derive(Clone, Debug, Default)]
pub struct Allowed(Arc<RwLock<BTreeSet<Key>>>);

impl Allowed {
    /// Nobody, until somebody is admitted.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Whether its holder may connect.
    pub fn admits(&self, key: Key) -> bool {
        self.read().contains(&key)
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.read().len()
    }

    /// Lets its holder connect from now on. False if it may already.
    pub fn admit(&self, key: Key) -> bool {
        self.write().insert(key)
    }

    /// Lets its holder connect no more. False if it might not before.
    pub fn revoke(&self, key: Key) -> bool {
        self.write().remove(&key)
    }

    /// Takes another list instead, at once, and returns the keys that are not on it any more.
    pub fn replace(&self, keys: impl IntoIterator<Item = Key>) -> BTreeSet<Key> {
        let keys = BTreeSet::from_iter(keys);
        let mut own = self.write();
        let revoked = own.difference(&keys).copied().collect();
        *own = keys;
        revoked
    }

    // No operation on the set leaves it half done, so a list whose writer panicked is as good as any.

    fn read(&self) -> RwLockReadGuard<'_, BTreeSet<Key>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeSet<Key>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<Key> for Allowed {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(Arc::new(RwLock::new(keys.into_iter().collect())))
    }
}

impl Key {
    /// Reads the usual text form, 40 characters of Z85.
    pub fn from_z85(text: &str) -> Result<Self, KeyError> {
        CurvePublicKey::from_z85(text).map(|key| Self(key.0)).map_err(|_| KeyError)
    }

    /// The usual text form, 40 characters of Z85.
    pub fn to_z85(self) -> String {
        CurvePublicKey::from_bytes(self.0).to_z85()
    }

    /// Reads 64 hexadecimal digits. Z85 has characters such as `@`, `$` and `&`, so that it fits neither into an
    /// address nor onto a command line.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        unhex(text).map(Self)
    }

    /// 64 hexadecimal digits, in lower case.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.to_z85())
    }
}

impl KeyPair {
    /// New keys from the operating system's entropy.
    pub fn generate() -> Self {
        Self(CurveKeypair::generate())
    }

    /// The pair whose secret this is, in Z85.
    pub fn from_secret_z85(secret: &str) -> Result<Self, KeyError> {
        let secret = CurveSecretKey::from_z85(secret).map_err(|_| KeyError)?;
        Ok(Self(CurveKeypair { public: secret.derive_public(), secret }))
    }

    /// The pair whose secret this is, in hexadecimal digits.
    pub fn from_secret_hex(secret: &str) -> Result<Self, HexError> {
        let secret = CurveSecretKey(unhex(secret)?);
        Ok(Self(CurveKeypair { public: secret.derive_public(), secret }))
    }

    /// The pair whose secret these bytes are.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let secret = CurveSecretKey(secret);
        Self(CurveKeypair { public: secret.derive_public(), secret })
    }

    /// The secret half.
    pub fn secret(&self) -> [u8; 32] {
        self.0.secret.0
    }

    /// The public half.
    pub fn public(&self) -> Key {
        Key(self.0.public.0)
    }

    /// The secret half in Z85, to be kept in a file. It appears nowhere else, not even in `Debug`.
    pub fn secret_z85(&self) -> String {
        self.0.secret.to_z85()
    }

    /// The same in hexadecimal digits.
    pub fn secret_hex(&self) -> String {
        hex(&self.0.secret.0)
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<[u8; 32], HexError> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(HexError);
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| HexError)?;
    }
    Ok(bytes)
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public().to_z85())
    }
}

/// Makes `options` those of a server that admits the allowed keys alone.
pub(crate) fn server(options: Options, curve: Curve) -> Options {
    let Curve { own, allowed } = curve;
    let admits = move |peer: &MechanismPeerInfo| allowed.admits(Key(peer.public_key));
    options.curve_server_with_options(own.0, CurveServerOptions::new().authenticator(admits))
}

/// Makes `options` those of a client that speaks to the holder of `server` alone.
pub(crate) fn client(options: Options, own: KeyPair, server: Key) -> Options {
    options.curve_client(own.0, CurvePublicKey::from_bytes(server.0))
}
