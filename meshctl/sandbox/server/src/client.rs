//! A `kube` client that asks the server without a socket.
//!
//! Watches stream as they do over the network. Upgrades (exec, port-forward) need the rim and are refused here.
//! Never here: answering. Called by controllers and the node.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;

use crate::reply::Body;
use crate::{Server, User};

/// The server as a `tower` service under one user's name.
#[derive(Clone)]
pub(crate) struct InProcess {
    server: Server,
    user: User,
}

impl tower::Service<Request<kube::client::Body>> for InProcess {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let Self { server, user } = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // A body made in this process cannot fail to arrive.
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_else(|_| Bytes::new());
            Ok(server.handle(Request::from_parts(head, body), user).await)
        })
    }
}

pub(crate) fn client(server: Server, user: User) -> kube::Client {
    kube::Client::new(InProcess { server, user }, "default")
}
