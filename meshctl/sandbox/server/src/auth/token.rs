//! ServiceAccount tokens: signed claims (RS256), bound to an account and perhaps to a Pod.
//!
//! Never here: HTTP, roles. Called by the `token` subresource, TokenReview and the rim.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::core::Core;
use crate::limits::TOKEN_BYTES_MAX;
use crate::object;
use crate::{User, clock};

/// Longest life, and the shortest, that a token may ask for.
pub(crate) const LIFE_MAX: i64 = 1 << 32;
pub(crate) const LIFE_MIN: i64 = 600;

/// Why a token is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("invalid bearer token")]
    Malformed,
    #[error("invalid bearer token, square/go-jose: error in cryptographic primitive")]
    Signature,
    #[error("invalid bearer token, service account token has expired")]
    Expired,
    #[error("invalid bearer token, service account token is not valid yet")]
    Early,
    #[error("invalid bearer token, token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience { found: Vec<String>, wanted: Vec<String> },
    #[error("invalid bearer token, service account token has been invalidated")]
    Revoked,
    #[error("the token cannot be signed")]
    Sign,
}

/// What a token is issued for.
pub(crate) struct Wanted<'w> {
    pub(crate) namespace: &'w str,
    pub(crate) account: &'w str,
    pub(crate) account_uid: &'w str,
    pub(crate) audiences: Vec<String>,
    pub(crate) seconds: i64,
    /// The Pod it dies with.
    pub(crate) pod: Option<&'w Value>,
}

/// The issuer that tokens name, which is also the audience of the API itself.
pub(crate) fn default_audience(core: &Core) -> String {
    core.options.issuer.clone()
}

pub(crate) fn issue(core: &Core, wanted: &Wanted<'_>) -> Result<(String, i64), TokenError> {
    let now = clock::now().as_second();
    let expires = now + wanted.seconds;
    let mut bound = json!({
        "namespace": wanted.namespace,
        "serviceaccount": {"name": wanted.account, "uid": wanted.account_uid},
    });
    if let Some(pod) = wanted.pod {
        let map = object::object(&mut bound);
        map.insert("pod".to_owned(), json!({"name": object::name(pod), "uid": object::uid(pod)}));
        let node = object::text(pod, "/spec/nodeName");
        if !node.is_empty() {
            let uid = core.store.get("nodes", "", node).map(|item| object::uid(&item.value()).to_owned());
            map.insert("node".to_owned(), json!({"name": node, "uid": uid.unwrap_or_default()}));
        }
        map.insert("warnafter".to_owned(), (now + wanted.seconds.min(3607)).into());
    }
    let claims = json!({
        "iss": core.options.issuer,
        "sub": format!("system:serviceaccount:{}:{}", wanted.namespace, wanted.account),
        "aud": wanted.audiences,
        "exp": expires, "iat": now, "nbf": now,
        "jti": uuid::Uuid::new_v4().to_string(),
        "kubernetes.io": bound,
    });
    let header = json!({"alg": "RS256", "kid": key_id(core)});
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = core.keys.tokens.sign(signed.as_bytes()).map_err(|_| TokenError::Sign)?;
    Ok((format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), expires))
}

/// The account that a token proves, and which of the wanted audiences it is for.
pub(crate) fn check(core: &Core, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let part = |text: &str| -> Result<Value, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
    };
    if object::text(&part(header)?, "/alg") != "RS256" {
        return Err(TokenError::Malformed);
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
    // PKCS#1 v1.5 is deterministic: what this key signed is what it signs now. Digests are compared, so that the
    // time it takes says nothing.
    let expected = core.keys.tokens.sign(signed.as_bytes()).map_err(|_| TokenError::Sign)?;
    if Sha256::digest(&expected) != Sha256::digest(&signature) {
        return Err(TokenError::Signature);
    }
    let claims = part(claims)?;
    let now = clock::now().as_second();
    if claims.get("exp").and_then(Value::as_i64).is_none_or(|expires| expires <= now) {
        return Err(TokenError::Expired);
    }
    if claims.get("nbf").and_then(Value::as_i64).is_some_and(|begins| begins > now + 60) {
        return Err(TokenError::Early);
    }
    if object::text(&claims, "/iss") != core.options.issuer {
        return Err(TokenError::Malformed);
    }
    let found: Vec<String> =
        object::items(&claims, "/aud").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let wanted = if audiences.is_empty() { vec![default_audience(core)] } else { audiences.to_vec() };
    let common: Vec<String> = wanted.iter().filter(|audience| found.contains(audience)).cloned().collect();
    if common.is_empty() {
        return Err(TokenError::Audience { found, wanted });
    }
    Ok((user(core, &claims)?, common))
}

/// The user; refused when the account or the Pod is gone.
fn user(core: &Core, claims: &Value) -> Result<User, TokenError> {
    let text = |path: &str| {
        let mut value = claims.get("kubernetes.io").unwrap_or(&Value::Null);
        for step in path.split('/') {
            value = value.get(step).unwrap_or(&Value::Null);
        }
        value.as_str().unwrap_or_default().to_owned()
    };
    let (namespace, account, uid) = (text("namespace"), text("serviceaccount/name"), text("serviceaccount/uid"));
    let same = |resource: &str, namespace: &str, name: &str, uid: &str| {
        core.store.get(resource, namespace, name).is_some_and(|item| object::uid(&item.value()) == uid)
    };
    if !same("serviceaccounts", &namespace, &account, &uid) {
        return Err(TokenError::Revoked);
    }
    let mut user = User {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid,
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        extra: std::collections::BTreeMap::new(),
    };
    let id = claims.get("jti").and_then(Value::as_str).unwrap_or_default();
    user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
    let (pod, pod_uid) = (text("pod/name"), text("pod/uid"));
    if !pod.is_empty() {
        if !same("pods", &namespace, &pod, &pod_uid) {
            return Err(TokenError::Revoked);
        }
        user.extra.insert("authentication.kubernetes.io/pod-name".to_owned(), vec![pod]);
        user.extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), vec![pod_uid]);
    }
    let (node, node_uid) = (text("node/name"), text("node/uid"));
    if !node.is_empty() {
        user.extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec![node]);
        user.extra.insert("authentication.kubernetes.io/node-uid".to_owned(), vec![node_uid]);
    }
    Ok(user)
}

pub(crate) fn key_id(core: &Core) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(core.keys.tokens.der_bytes()))
}

/// `/.well-known/openid-configuration`.
pub(crate) fn configuration(core: &Core) -> Value {
    json!({
        "issuer": core.options.issuer,
        "jwks_uri": format!("{}/openid/v1/jwks", core.options.issuer),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
}

/// `/openid/v1/jwks`.
pub(crate) fn jwks(core: &Core) -> Value {
    let (n, e) = modulus_and_exponent(core.keys.tokens.der_bytes()).unwrap_or_default();
    json!({"keys": [{
        "use": "sig", "kty": "RSA", "kid": key_id(core), "alg": "RS256",
        "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e),
    }]})
}

/// The two integers of a PKCS#1 public key.
fn modulus_and_exponent(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, _) = element(der, 0x30)?;
    let (n, rest) = element(body, 0x02)?;
    let (e, _) = element(rest, 0x02)?;
    Some((bare(n), bare(e)))
}

/// Without the zero that keeps an integer positive.
fn bare(bytes: &[u8]) -> &[u8] {
    if let [0, rest @ ..] = bytes { rest } else { bytes }
}

fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *found != tag {
        return None;
    }
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)), rest)
    };
    rest.split_at_checked(length)
}
