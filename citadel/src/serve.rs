//! The gRPC service: proves who calls, asks `policy`, has `issue` sign.
//!
//! A bearer token speaks before a certificate; a wrong token is refused even where the connection has a certificate.
//! Never here: decisions. Served on port 8060; pilot passes callers' tokens on to it.

use std::{sync::Arc, time::Duration};

use api_rt::{
    clock::Clock,
    grpc::Peer,
    identity::{Authority, IdentityError, Signing},
};
use api_xds::ca::{CreateCertificateRequest, CreateCertificateResponse, server::Certificates};
use rand::Rng as _;
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    issue::{self, IssueError},
    limits::{REQUESTS_MAX, TOKEN_BYTES_MAX},
    policy::{CITADEL, Caller, Policy, Refusal, Wish},
    root::Root,
    token::{TokenError, Tokens},
};

/// Why a caller gets no certificate.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("request authenticate failure: {0}")]
    Caller(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Policy(#[from] Refusal),
    #[error("{0}")]
    Issue(#[from] IssueError),
    #[error("metadata {0:?} is not offered")]
    Metadata(String),
    #[error("more than {REQUESTS_MAX} requests at once; try again later")]
    Crowded,
}

impl Failure {
    /// Name of the failure in metrics.
    fn count(&self) {
        match self {
            Self::Caller(_) => metrics::counter!("citadel_server_authentication_failure_count").increment(1),
            Self::Unavailable(_) => metrics::counter!("citadel_server_authentication_unavailable_count").increment(1),
            Self::Crowded => metrics::counter!("citadel_server_crowded_count").increment(1),
            Self::Policy(_) | Self::Metadata(_) => {
                metrics::counter!("citadel_server_id_extraction_err_count").increment(1);
            }
            Self::Issue(IssueError::Request(_) | IssueError::Authority | IssueError::KeySize(_)) => {
                metrics::counter!("citadel_server_csr_parsing_err_count").increment(1);
            }
            Self::Issue(IssueError::RootExpired | IssueError::Sign(_)) => {
                metrics::counter!("citadel_server_csr_sign_err_count").increment(1);
            }
        }
    }

    fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::Caller(_) => Status::unauthenticated(text),
            Self::Unavailable(_) => Status::unavailable(text),
            Self::Crowded => Status::resource_exhausted(text),
            Self::Policy(Refusal::TooLong { .. }) | Self::Metadata(_) => Status::invalid_argument(text),
            Self::Policy(
                Refusal::TrustDomain { .. }
                | Refusal::Unnameable { .. }
                | Refusal::OtherName { .. }
                | Refusal::Impersonation(_),
            ) => Status::permission_denied(text),
            Self::Issue(IssueError::Request(_) | IssueError::Authority | IssueError::KeySize(_)) => {
                Status::invalid_argument(text)
            }
            Self::Issue(IssueError::RootExpired | IssueError::Sign(_)) => Status::internal(text),
        }
    }
}

/// The service.
#[derive(Clone)]
pub(crate) struct Desk {
    /// The authority that signs now.
    pub(crate) root: watch::Receiver<Arc<Root>>,
    /// The rules.
    pub(crate) policy: Policy,
    /// How tokens are checked.
    pub(crate) tokens: Tokens,
    /// The time.
    pub(crate) clock: Clock,
    /// A turn for each request that may be answered at once.
    pub(crate) turns: Arc<Semaphore>,
}

fn bearer(metadata: &MetadataMap) -> Result<Option<String>, Failure> {
    let Some(value) = metadata.get("authorization") else { return Ok(None) };
    let text = value.to_str().map_err(|_| Failure::Caller("the authorization is not text".to_owned()))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_BYTES_MAX => {
            Ok(Some(token.trim().to_owned()))
        }
        Some(_) | None => Err(Failure::Caller("the authorization is no bearer token".to_owned())),
    }
}

impl Desk {
    async fn caller(&self, metadata: &MetadataMap, peer: Option<&Peer>) -> Result<Caller, Failure> {
        if let Some(token) = bearer(metadata)? {
            return self.tokens.holder(&token).await.map_err(|error| match error {
                TokenError::Refused(why) => Failure::Caller(why),
                TokenError::Unavailable(why) => Failure::Unavailable(why),
            });
        }
        match peer.and_then(|peer| peer.identity.clone()) {
            Some(identity) => Ok(Caller::Certificate(identity)),
            None => Err(Failure::Caller("neither a bearer token nor a client certificate".to_owned())),
        }
    }

    fn sign(&self, caller: &Caller, csr: &str, mut wish: Wish) -> Result<Vec<String>, Failure> {
        let request = issue::read(csr)?;
        wish.names.clone_from(&request.names);
        let grant = self.policy.grant(caller, &wish)?;
        let mut serial = [0; 16];
        rand::rng().fill_bytes(&mut serial);
        let root = Arc::clone(&self.root.borrow());
        let chain = issue::certificate(&request, &grant, &root, self.clock.now(), serial)?;
        tracing::info!(identity = %grant.identity, lifetime = ?grant.lifetime, "certificate issued");
        Ok(chain)
    }

    async fn answer(&self, request: Request<CreateCertificateRequest>) -> Result<Vec<String>, Failure> {
        metrics::counter!("citadel_server_csr_count").increment(1);
        let _turn = self.turns.try_acquire().map_err(|_| Failure::Crowded)?;
        let caller = self.caller(request.metadata(), request.extensions().get::<Peer>()).await?;
        let CreateCertificateRequest { csr, validity_duration, metadata } = request.into_inner();
        let mut wish = Wish {
            lifetime: u64::try_from(validity_duration).ok().filter(|s| *s > 0).map(Duration::from_secs),
            ..Wish::default()
        };
        for (name, value) in metadata.map(|fields| fields.fields).unwrap_or_default() {
            let text = match value.kind {
                Some(prost_types::value::Kind::StringValue(text)) => text,
                Some(_) | None => String::new(),
            };
            match name.as_str() {
                "ImpersonatedIdentity" => wish.impersonates = Some(text),
                // An empty signer is this one.
                "CertSigner" if text.is_empty() => {}
                _ => return Err(Failure::Metadata(name)),
            }
        }
        self.sign(&caller, &csr, wish)
    }
}

#[tonic::async_trait]
impl Certificates for Desk {
    async fn create_certificate(
        &self,
        request: Request<CreateCertificateRequest>,
    ) -> Result<Response<CreateCertificateResponse>, Status> {
        let address = request.extensions().get::<Peer>().map(|peer| peer.address);
        match self.answer(request).await {
            Ok(cert_chain) => {
                metrics::counter!("citadel_server_success_cert_issuance_count").increment(1);
                Ok(Response::new(CreateCertificateResponse { cert_chain }))
            }
            Err(failure) => {
                failure.count();
                tracing::warn!(?address, %failure, "no certificate issued");
                Err(failure.status())
            }
        }
    }
}

/// Citadel asks itself for its own certificate, by the same rules.
impl Authority for Desk {
    fn sign(&self, csr_pem: String, lifetime: Duration) -> Signing<'_> {
        let caller = Caller::ServiceAccount { namespace: self.policy.namespace.clone(), name: CITADEL.to_owned() };
        let wish = Wish { lifetime: Some(lifetime), ..Wish::default() };
        let signed =
            Self::sign(self, &caller, &csr_pem, wish).map_err(|failure| IdentityError::Refused(failure.to_string()));
        Box::pin(std::future::ready(signed))
    }
}
