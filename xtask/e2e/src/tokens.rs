//! Signs ServiceAccount tokens where there is no API server: an issuer with the keys that citadel checks by.
//!
//! Never here: checking. Called by suites that run citadel without Kubernetes.

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::json;

const KEY_ID: &str = "test";
/// The issuer that citadel expects where no other is named.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// A day beyond any test, in seconds since 1970.
const EXPIRES: u64 = 4_000_000_000;

/// An issuer.
pub struct Issuer(KeyPair);

impl Issuer {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        Ok(Self(KeyPair::generate_for(&PKCS_ED25519)?))
    }

    /// Its key, as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub fn keys(&self) -> String {
        let key = URL_SAFE_NO_PAD.encode(self.0.der_bytes());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": KEY_ID, "x": key });
        json!({ "keys": [key] }).to_string()
    }

    /// A token of a service account, for an audience.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn token(&self, namespace: &str, account: &str, audience: &str) -> Result<String> {
        let head = json!({ "alg": "EdDSA", "typ": "JWT", "kid": KEY_ID });
        let subject = format!("system:serviceaccount:{namespace}:{account}");
        let claims = json!({ "iss": ISSUER, "sub": subject, "aud": [audience], "exp": EXPIRES });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes())?);
        Ok(format!("{signed}.{signature}"))
    }
}
