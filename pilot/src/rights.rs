//! Which proxies may be sent the certificates and keys that lie in their namespace.
//!
//! Only a gateway that proved by certificate which ServiceAccount it is; and in Kubernetes only where that account may list
//! the Secrets of its namespace itself, as in Istio. What the API server says holds for a short time; while it does not
//! answer, nothing is granted anew and nothing taken away.
//! Never here: which Secrets a gateway needs (`api-mesh`: only of its own namespace). Asked by `serve`.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use api::name::SpiffeId;
use api_kube::access;
use tokio::time::Instant;

use crate::limits::{RIGHT_LIMIT, RIGHTS_HOLD, RIGHTS_MAX};

/// Whether a proxy may be sent certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// It is no gateway, or did not prove who it is: no.
    None,
    /// It is a gateway, and may.
    Granted,
    /// It is a gateway, and may not.
    Withheld,
}

/// Who says what a gateway may.
pub(crate) enum Rights {
    /// Nobody: without Kubernetes, to be proven a gateway of the namespace is enough.
    ByIdentity,
    /// The API server.
    ByReview(Reviews),
}

impl Rights {
    /// The right of a gateway that proved to be this, and had this right before.
    pub(crate) async fn of(&self, identity: &SpiffeId, before: Right, now: Instant) -> Right {
        match self {
            Self::ByIdentity => Right::Granted,
            Self::ByReview(reviews) => reviews.of(identity, before, now).await,
        }
    }

    /// After how long a right is to be asked for again.
    pub(crate) fn hold(&self, right: Right) -> Option<Duration> {
        match (self, right) {
            (Self::ByIdentity, _) | (_, Right::None) => None,
            (Self::ByReview(_), Right::Granted | Right::Withheld) => Some(RIGHTS_HOLD),
        }
    }
}

/// What the API server said lately.
pub(crate) struct Reviews {
    client: kube::Client,
    known: Mutex<HashMap<SpiffeId, (Right, Instant)>>,
}

impl Reviews {
    /// Asks this API server.
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    async fn of(&self, identity: &SpiffeId, before: Right, now: Instant) -> Right {
        if let Some(right) = self.known(identity, now) {
            return right;
        }
        let ask = access::may_list_secrets(&self.client, identity.namespace(), identity.service_account());
        let right = match tokio::time::timeout(RIGHT_LIMIT, ask).await {
            Ok(Ok(true)) => Right::Granted,
            Ok(Ok(false)) => Right::Withheld,
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%identity, error, "the API server cannot be asked what a gateway may; it keeps what it has");
                return unasked(before);
            }
            Err(_) => {
                tracing::warn!(%identity, limit = ?RIGHT_LIMIT, "the API server does not say in time what a gateway may; it keeps what it has");
                return unasked(before);
            }
        };
        if right == Right::Withheld && before != Right::Withheld {
            tracing::warn!(%identity, "a gateway is sent no certificates: its ServiceAccount may not list the Secrets of its namespace");
        }
        self.keep(identity, right, now);
        right
    }

    fn known(&self, identity: &SpiffeId, now: Instant) -> Option<Right> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (right, asked) = known.get(identity)?;
        (*asked + RIGHTS_HOLD > now).then_some(*right)
    }

    fn keep(&self, identity: &SpiffeId, right: Right, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= RIGHTS_MAX {
            known.retain(|_, (_, asked)| *asked + RIGHTS_HOLD > now);
        }
        if known.len() < RIGHTS_MAX || known.contains_key(identity) {
            known.insert(identity.clone(), (right, now));
        }
    }
}

/// Nothing is granted unasked, and nothing that was granted is taken away.
fn unasked(before: Right) -> Right {
    if before == Right::Granted { Right::Granted } else { Right::Withheld }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that answers reviews, and is counted.
    #[derive(Clone, Default)]
    pub(crate) struct Server {
        pub(crate) allows: Arc<Mutex<Option<bool>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Server {
        pub(crate) fn says(&self, allows: Option<bool>) {
            *self.allows.lock().unwrap() = allows;
        }

        pub(crate) fn rights(&self) -> Rights {
            let server = self.clone();
            let serve = move |request: http::Request<Body>| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            };
            Rights::ByReview(Reviews::new(kube::Client::new(tower::service_fn(serve), "default")))
        }

        async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
            assert_eq!(request.uri().path(), "/apis/authorization.k8s.io/v1/subjectaccessreviews");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let attributes = json!({ "namespace": "istio-system", "verb": "list", "resource": "secrets" });
            let spec = json!({ "user": "system:serviceaccount:istio-system:gw", "resourceAttributes": attributes });
            assert_eq!(review["spec"], spec);
            self.asked.fetch_add(1, Ordering::Relaxed);
            let allows = *self.allows.lock().unwrap();
            let Some(allows) = allows else {
                let status = json!({ "kind": "Status", "status": "Failure", "code": 500, "reason": "", "message": "" });
                return http::Response::builder()
                    .status(500)
                    .body(Body::from(status.to_string().into_bytes()))
                    .unwrap();
            };
            review["status"] = json!({ "allowed": allows });
            http::Response::builder().status(201).body(Body::from(review.to_string().into_bytes())).unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_api_server_says_holds_for_a_while_and_its_silence_changes_nothing() {
        let server = Server::default();
        let rights = server.rights();
        let gateway: SpiffeId = "spiffe://cluster.local/ns/istio-system/sa/gw".parse().unwrap();
        let start = Instant::now();
        let mut right = Right::None;
        // seconds, what the server says, what the gateway then may, how often it was asked
        for (at, says, expected, asked) in [
            (0, None, Right::Withheld, 1),
            (1, Some(false), Right::Withheld, 2),
            (60, Some(true), Right::Withheld, 2),
            (62, Some(true), Right::Granted, 3),
            (120, Some(false), Right::Granted, 3),
            (130, None, Right::Granted, 4),
            (131, Some(false), Right::Withheld, 5),
        ] {
            server.says(says);
            right = rights.of(&gateway, right, start + Duration::from_secs(at)).await;
            assert_eq!((right, server.asked.load(Ordering::Relaxed)), (expected, asked), "after {at} s");
        }
    }
}
