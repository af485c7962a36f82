//! Istio's certificate signing service, `istio.v1.auth.IstioCertificateService`, as messages and gRPC stubs.
//!
//! Written by hand after the published protocol, so that Istio's agents and other authorities can be spoken to.
//! Never here: who may have which certificate. Served by citadel (and pilot, which passes on); called by `api-rt`.

use prost_types::Struct;

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateCertificateRequest {
    /// Certificate signing request, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Lifetime wanted, seconds.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// More, such as `ImpersonatedIdentity` and `CertSigner`.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// The certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateCertificateResponse {
    /// PEM, leaf first, root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// Path of the only method.
const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The calling side.
pub mod client {
    use bytes::Bytes;
    use tonic::{
        body::Body,
        client::{Grpc, GrpcService},
        codegen::{Body as HttpBody, StdError, http::uri::PathAndQuery},
    };
    use tonic_prost::ProstCodec;

    use super::{CreateCertificateRequest, CreateCertificateResponse, METHOD};

    /// Calls the service over any channel.
    #[derive(Debug, Clone)]
    pub struct CertificateClient<T> {
        grpc: Grpc<T>,
    }

    impl<T> CertificateClient<T>
    where
        T: GrpcService<Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
    {
        /// A client over this channel.
        pub fn new(channel: T) -> Self {
            Self { grpc: Grpc::new(channel) }
        }

        /// Asks for a certificate.
        ///
        /// # Errors
        /// As the server says.
        pub async fn create_certificate(
            &mut self,
            request: tonic::Request<CreateCertificateRequest>,
        ) -> Result<tonic::Response<CreateCertificateResponse>, tonic::Status> {
            self.grpc.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
            let codec: ProstCodec<CreateCertificateRequest, CreateCertificateResponse> = ProstCodec::default();
            self.grpc.unary(request, PathAndQuery::from_static(METHOD), codec).await
        }
    }
}

/// The answering side.
pub mod server {
    use std::{
        convert::Infallible,
        sync::Arc,
        task::{Context, Poll},
    };

    use tonic::{
        body::Body,
        codegen::{BoxFuture, Service, http},
        server::{Grpc, NamedService, UnaryService},
    };
    use tonic_prost::ProstCodec;

    use super::{CreateCertificateRequest, CreateCertificateResponse, METHOD};

    /// Largest request, bytes: a request for a certificate is a few kilobytes.
    const LARGEST_REQUEST: usize = 64 * 1024;

    /// What answers.
    #[tonic::async_trait]
    pub trait Certificates: Send + Sync + 'static {
        /// Signs a request, or refuses.
        async fn create_certificate(
            &self,
            request: tonic::Request<CreateCertificateRequest>,
        ) -> Result<tonic::Response<CreateCertificateResponse>, tonic::Status>;
    }

    /// The service, to be added to a server's routes.
    #[derive(Debug)]
    pub struct CertificateServer<T>(Arc<T>);

    impl<T> Clone for CertificateServer<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    impl<T: Certificates> CertificateServer<T> {
        /// Serves by this.
        pub fn new(answers: T) -> Self {
            Self(Arc::new(answers))
        }
    }

    struct Call<T>(Arc<T>);

    impl<T: Certificates> UnaryService<CreateCertificateRequest> for Call<T> {
        type Response = CreateCertificateResponse;
        type Future = BoxFuture<tonic::Response<Self::Response>, tonic::Status>;

        fn call(&mut self, request: tonic::Request<CreateCertificateRequest>) -> Self::Future {
            let answers = Arc::clone(&self.0);
            Box::pin(async move { answers.create_certificate(request).await })
        }
    }

    impl<T: Certificates> Service<http::Request<Body>> for CertificateServer<T> {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Self::Error>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let answers = Arc::clone(&self.0);
            Box::pin(async move {
                if request.uri().path() != METHOD {
                    return Ok(tonic::Status::unimplemented("no such method").into_http());
                }
                let codec: ProstCodec<CreateCertificateResponse, CreateCertificateRequest> = ProstCodec::default();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST_REQUEST);
                Ok(grpc.unary(Call(answers), request).await)
            })
        }
    }

    impl<T> NamedService for CertificateServer<T> {
        const NAME: &'static str = "istio.v1.auth.IstioCertificateService";
    }
}
