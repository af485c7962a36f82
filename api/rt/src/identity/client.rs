//! Asks citadel (or any Istio CA) for a certificate, over gRPC.
//!
//! The caller is proven by its ServiceAccount token, read anew each time, or by its current certificate; the authority by
//! the roots in a file, also read anew, and its DNS name. Never here: when to ask (`renewal`). Used by all but citadel.

use std::{path::PathBuf, time::Duration};

use api_xds::ca::{CreateCertificateRequest, client::CertificateClient};
use tonic::{Code, Request, metadata::MetadataValue};

use super::{Authority, IdentityError, Signed, Signing};
use crate::{
    grpc,
    tls::{self, CertificateSlot, ClientOptions, Expect, Peers, Roots, RootsSlot},
};

/// How long one request may take, connecting included.
const LIMIT: Duration = Duration::from_secs(10);

/// Where the authority is and how both sides prove who they are.
#[derive(Debug, Clone)]
pub struct CaOptions {
    /// `host:port`.
    pub address: String,
    /// DNS name the authority must prove; none: the host in `address`.
    pub name: Option<String>,
    /// File of roots to check the authority against.
    pub roots: PathBuf,
    /// File of the bearer token; if it is absent the current certificate speaks.
    pub token: Option<PathBuf>,
    /// Cluster that the caller runs in (`ClusterID` metadata).
    pub cluster: String,
    /// Packet mark of the connection (see [`grpc::Target`]).
    pub mark: Option<u32>,
}

/// A client of the certificate authority.
#[derive(Debug, Clone)]
pub struct CaClient {
    options: CaOptions,
    certificate: CertificateSlot,
}

impl CaClient {
    /// A client that shows this certificate (once there is one) where it has no token.
    pub fn new(options: CaOptions, certificate: CertificateSlot) -> Self {
        Self { options, certificate }
    }

    async fn read(path: &PathBuf) -> Result<Vec<u8>, IdentityError> {
        tokio::fs::read(path).await.map_err(|source| IdentityError::File { path: path.clone(), source })
    }

    async fn token(&self) -> Result<Option<String>, IdentityError> {
        let Some(path) = &self.options.token else { return Ok(None) };
        match Self::read(path).await {
            Ok(token) => Ok(Some(String::from_utf8_lossy(&token).trim().to_owned())),
            Err(_) if self.certificate.get().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, csr: String, lifetime: Duration) -> Result<Signed, IdentityError> {
        let options = &self.options;
        let unreachable = |reason: String| IdentityError::Unreachable { address: options.address.clone(), reason };
        let roots = Roots::from_pem(&Self::read(&options.roots).await?)?;
        let token = self.token().await?;
        let host = options.address.rsplit_once(':').map_or(options.address.as_str(), |(host, _)| host);
        let name = options.name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
        let tls = tls::client_config(ClientOptions {
            certificate: token.is_none().then(|| self.certificate.clone()),
            expect: Expect { roots: RootsSlot::holding(roots), peers: Peers::ServerName },
            alpn: vec![b"h2".to_vec()],
            only_tls13: false,
        })?;
        let target = grpc::Target { address: options.address.clone(), tls: Some((tls, name)), mark: options.mark };
        let channel = grpc::channel(&target).map_err(|error| unreachable(error.to_string()))?;
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let mut request = Request::new(CreateCertificateRequest { csr, validity_duration: lifetime, metadata: None });
        request.set_timeout(LIMIT);
        if let Ok(cluster) = MetadataValue::try_from(options.cluster.as_str()) {
            request.metadata_mut().insert("clusterid", cluster);
        }
        if let Some(token) = token {
            let bearer = MetadataValue::try_from(format!("Bearer {token}"))
                .map_err(|_| IdentityError::Refused("the token file holds characters no token has".to_owned()))?;
            request.metadata_mut().insert("authorization", bearer);
        }
        let mut client = CertificateClient::new(channel);
        match tokio::time::timeout(LIMIT, client.create_certificate(request)).await {
            Err(_) => Err(unreachable(format!("no answer within {LIMIT:?}"))),
            Ok(Ok(reply)) => Ok(reply.into_inner().cert_chain),
            Ok(Err(status)) => Err(
                if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument) {
                    IdentityError::Refused(status.message().to_owned())
                } else {
                    unreachable(grpc::reason(&status))
                },
            ),
        }
    }
}

impl Authority for CaClient {
    fn sign(&self, csr_pem: String, lifetime: Duration) -> Signing<'_> {
        Box::pin(self.ask(csr_pem, lifetime))
    }
}
