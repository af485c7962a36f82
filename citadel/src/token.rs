//! Whose bearer token it is: asked of the API server, or checked with keys in a file where there is none.
//!
//! Either way the token must be meant for the audience `istio-ca`.
//! Never here: what its holder may have (`policy`). Called by `serve`.

use std::path::PathBuf;

use api_kube::token::{TokenError as ReviewError, review};
use api_rt::clock::Clock;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde::Deserialize;

use crate::{limits::TOKEN_SKEW, policy::Caller};

/// The audience of tokens for the certificate authority.
pub(crate) const AUDIENCE: &str = "istio-ca";

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// It is wrong.
    #[error("{0}")]
    Refused(String),
    /// It could not be checked now.
    #[error("the token cannot be checked now: {0}")]
    Unavailable(String),
}

/// How tokens are checked.
#[derive(Clone)]
pub(crate) enum Tokens {
    /// By the API server.
    Review(kube::Client),
    /// By keys in a file.
    Keys {
        /// The file: a JSON Web Key Set.
        jwks: PathBuf,
        /// Who must have issued the token.
        issuer: String,
        /// The time.
        clock: Clock,
    },
    /// Not at all: only certificates prove who calls.
    Never,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    nbf: u64,
}

impl Tokens {
    /// Who holds this token.
    pub(crate) async fn holder(&self, token: &str) -> Result<Caller, TokenError> {
        match self {
            Self::Review(client) => match review(client, token, AUDIENCE).await {
                Ok(holder) => Ok(Caller::ServiceAccount { namespace: holder.namespace, name: holder.service_account }),
                Err(error @ (ReviewError::Refused(_) | ReviewError::NotAServiceAccount(_))) => {
                    Err(TokenError::Refused(error.to_string()))
                }
                Err(ReviewError::Unreachable(error)) => Err(TokenError::Unavailable(error.to_string())),
            },
            Self::Keys { jwks, issuer, clock } => {
                let text = tokio::fs::read_to_string(jwks).await;
                let text = text.map_err(|error| TokenError::Unavailable(format!("{}: {error}", jwks.display())))?;
                let keys: JwkSet = serde_json::from_str(&text)
                    .map_err(|error| TokenError::Unavailable(format!("{}: {error}", jwks.display())))?;
                check(token, &keys, issuer, clock.unix())
            }
            Self::Never => Err(TokenError::Refused("tokens are not accepted here; show a certificate".to_owned())),
        }
    }
}

fn check(token: &str, keys: &JwkSet, issuer: &str, now: u64) -> Result<Caller, TokenError> {
    let refused =
        |error: jsonwebtoken::errors::Error| TokenError::Refused(format!("the token was not accepted: {error}"));
    let header = decode_header(token).map_err(refused)?;
    let key = match &header.kid {
        Some(kid) => keys.find(kid).ok_or_else(|| TokenError::Refused(format!("no key {kid:?} is known")))?,
        None => match keys.keys.as_slice() {
            [only] => only,
            _ => return Err(TokenError::Refused("the token does not name its key".to_owned())),
        },
    };
    // Only signatures that a public key checks; the key's kind must fit besides.
    if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        return Err(TokenError::Refused(format!("the token's algorithm {:?} is not accepted", header.alg)));
    }
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    // The time is checked below, by our own clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let key = DecodingKey::from_jwk(key).map_err(refused)?;
    let claims = decode::<Claims>(token, &key, &validation).map_err(refused)?.claims;
    let skew = TOKEN_SKEW.as_secs();
    if now > claims.exp.saturating_add(skew) {
        return Err(TokenError::Refused("the token has expired".to_owned()));
    }
    if now.saturating_add(skew) < claims.nbf {
        return Err(TokenError::Refused("the token is not valid yet".to_owned()));
    }
    let account = claims.sub.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, name)) => {
            Ok(Caller::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        None => Err(TokenError::Refused(format!("the token belongs to {:?}, not to a service account", claims.sub))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode, jwk::Jwk};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;

    pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// An issuer of tokens.
    pub(crate) struct Issuer(EncodingKey);

    impl Issuer {
        pub(crate) fn new() -> Self {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            Self(EncodingKey::from_ec_der(pair.serialized_der()))
        }

        pub(crate) fn keys(&self) -> JwkSet {
            let mut key = Jwk::from_encoding_key(&self.0, Algorithm::ES256).unwrap();
            key.common.key_id = Some("k1".into());
            JwkSet { keys: vec![key] }
        }

        pub(crate) fn token(&self, subject: &str, audience: &str, expires: u64) -> String {
            let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::ES256) };
            let claims =
                serde_json::json!({ "iss": ISSUER, "sub": subject, "aud": [audience], "exp": expires, "nbf": 1_000 });
            encode(&header, &claims, &self.0).unwrap()
        }
    }

    #[test]
    fn only_a_good_token_for_this_audience_proves_a_service_account() {
        let (issuer, other) = (Issuer::new(), Issuer::new());
        let keys = issuer.keys();
        let try_token = |token: &str, now| check(token, &keys, ISSUER, now);
        let good = issuer.token("system:serviceaccount:shop:reviews", AUDIENCE, 2_000);
        let caller = Caller::ServiceAccount { namespace: "shop".into(), name: "reviews".into() };
        assert_eq!(try_token(&good, 1_500).unwrap(), caller);
        let refusals = [
            (good.clone(), 2_011, "expired"),
            (good.clone(), 900, "not valid yet"),
            (issuer.token("system:serviceaccount:shop:reviews", "kubernetes", 2_000), 1_500, "InvalidAudience"),
            (other.token("system:serviceaccount:shop:reviews", AUDIENCE, 2_000), 1_500, "InvalidSignature"),
            (issuer.token("admin", AUDIENCE, 2_000), 1_500, "not to a service account"),
            ("nonsense".to_owned(), 1_500, "InvalidToken"),
        ];
        for (token, now, says) in refusals {
            let error = try_token(&token, now).unwrap_err().to_string();
            assert!(error.contains(says), "{error} should say {says}");
        }
        assert!(check(&good, &keys, "https://elsewhere", 1_500).unwrap_err().to_string().contains("InvalidIssuer"));
    }
}
