//! Istio's agents ask pilot for certificates: their requests go on to citadel, with their own tokens.
//!
//! Pilot adds no right of its own: a caller without a token is refused here.
//! Never here: signing. Served beside ADS on 15012.

use api_xds::ca::{
    CreateCertificateRequest, CreateCertificateResponse, client::CertificateClient, server::Certificates,
};
use tonic::{Request, Response, Status, transport::Channel};

/// Passes requests on.
pub(crate) struct PassedOn {
    citadel: Channel,
}

impl PassedOn {
    /// To citadel, over this channel.
    pub(crate) fn to(citadel: Channel) -> Self {
        Self { citadel }
    }
}

#[tonic::async_trait]
impl Certificates for PassedOn {
    async fn create_certificate(
        &self,
        request: Request<CreateCertificateRequest>,
    ) -> Result<Response<CreateCertificateResponse>, Status> {
        let (metadata, _, body) = request.into_parts();
        let token = metadata.get("authorization").filter(|value| value.as_bytes().starts_with(b"Bearer "));
        let token = token.cloned().ok_or_else(|| Status::unauthenticated("a bearer token is needed"))?;
        let mut onward = Request::new(body);
        onward.metadata_mut().insert("authorization", token);
        if let Some(cluster) = metadata.get("clusterid") {
            onward.metadata_mut().insert("clusterid", cluster.clone());
        }
        CertificateClient::new(self.citadel.clone()).create_certificate(onward).await
    }
}
