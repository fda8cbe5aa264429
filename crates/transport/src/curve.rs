//! CURVE: keys, and who may connect. A server always has an allow-list; the library alone would admit any key.

use std::collections::BTreeSet;
use std::fmt;

use omq_tokio::{
    CurveKeypair, CurvePublicKey, CurveSecretKey, CurveServerOptions, MechanismPeerInfo, Options,
};

use crate::error::KeyError;

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
    pub allowed: BTreeSet<Key>,
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

    /// The public half.
    pub fn public(&self) -> Key {
        Key(self.0.public.0)
    }

    /// The secret half in Z85, to be kept in a file. It appears nowhere else, not even in `Debug`.
    pub fn secret_z85(&self) -> String {
        self.0.secret.to_z85()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public().to_z85())
    }
}

/// Makes `options` those of a server that admits the allowed keys alone.
pub(crate) fn server(options: Options, curve: Curve) -> Options {
    let Curve { own, allowed } = curve;
    let admits = move |peer: &MechanismPeerInfo| allowed.contains(&Key(peer.public_key));
    options.curve_server_with_options(own.0, CurveServerOptions::new().authenticator(admits))
}

/// Makes `options` those of a client that speaks to the holder of `server` alone.
pub(crate) fn client(options: Options, own: KeyPair, server: Key) -> Options {
    options.curve_client(own.0, CurvePublicKey::from_bytes(server.0))
}
