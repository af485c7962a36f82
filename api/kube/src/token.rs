//! Who holds a ServiceAccount token: the API server is asked by TokenReview.
//!
//! Never here: what the caller may do. Called by citadel for bearer tokens.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};

/// The holder of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The Pod that the token is bound to, if it is.
    pub pod: Option<String>,
}

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The API server does not accept it (for this audience).
    #[error("the token was not accepted: {0}")]
    Refused(String),
    /// It belongs to a user or node.
    #[error("the token belongs to {0:?}, not to a service account")]
    NotAServiceAccount(String),
    /// The API server could not be asked.
    #[error("could not ask the API server about the token")]
    Unreachable(#[source] kube::Error),
}

/// Asks who holds this token, which must be meant for this audience.
///
/// # Errors
/// It proves no service account, or the API server does not answer.
pub async fn review(client: &Client, token: &str, audience: &str) -> Result<Holder, TokenError> {
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) };
    let ask = TokenReview { spec, ..TokenReview::default() };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &ask).await.map_err(TokenError::Unreachable)?;
    read(answer, audience)
}

fn read(answer: TokenReview, audience: &str) -> Result<Holder, TokenError> {
    let status = answer.status.unwrap_or_default();
    if status.authenticated != Some(true) {
        let reason = status.error.filter(|text| !text.is_empty());
        return Err(TokenError::Refused(reason.unwrap_or_else(|| "it is not authenticated".to_owned())));
    }
    // A server that knows nothing of audiences leaves the list out; then the token proves nothing for ours.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|one| one == audience) {
        return Err(TokenError::Refused(format!("it is meant for {audiences:?}, not for {audience:?}")));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let Some((namespace, service_account)) = account else { return Err(TokenError::NotAServiceAccount(name)) };
    let pod = user.extra.and_then(|mut extra| extra.remove("authentication.kubernetes.io/pod-name")?.pop());
    Ok(Holder { namespace: namespace.to_owned(), service_account: service_account.to_owned(), pod })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &serde_json::Value) -> Result<Holder, TokenError> {
        let review = serde_json::json!({ "metadata": {}, "spec": {}, "status": status });
        read(serde_json::from_value(review).unwrap(), "istio-ca")
    }

    #[test]
    fn only_a_service_accounts_token_for_this_audience_proves_anything() {
        let user = serde_json::json!({
            "username": "system:serviceaccount:shop:reviews",
            "extra": { "authentication.kubernetes.io/pod-name": ["reviews-1"] },
        });
        let good = serde_json::json!({ "authenticated": true, "user": user, "audiences": ["istio-ca"] });
        let holder =
            Holder { namespace: "shop".into(), service_account: "reviews".into(), pod: Some("reviews-1".into()) };
        assert_eq!(answer(&good).unwrap(), holder);
        for bad in [
            serde_json::json!({ "authenticated": false, "error": "expired" }),
            serde_json::json!({ "authenticated": true, "user": user }),
            serde_json::json!({ "authenticated": true, "user": user, "audiences": ["kubernetes"] }),
            serde_json::json!({ "authenticated": true, "user": { "username": "admin" }, "audiences": ["istio-ca"] }),
        ] {
            assert!(answer(&bad).is_err(), "{bad}");
        }
    }
}
