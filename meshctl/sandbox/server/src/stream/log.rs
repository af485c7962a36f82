//! `GET …/pods/NAME/log`.
//!
//! Never here: where logs are kept. Called by `dispatch`.

use std::convert::Infallible;

use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio_util::io::ReaderStream;

use crate::core::Core;
use crate::reply::{Body, Refusal};
use crate::verb::Call;
use crate::{LogRequest, clock};

pub(crate) async fn run(core: &Core, call: &Call) -> Result<Response<Body>, Refusal> {
    let (reference, value) = super::pod(core, call)?;
    let container = super::container(call, &value)?;
    let kubelet = core.kubelet().ok_or_else(super::no_node)?;
    let number = |name: &str| call.query.filled(name).and_then(|text| text.parse::<u64>().ok());
    let since_seconds = number("sinceSeconds")
        .map(|seconds| clock::now().as_second().saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX)));
    let since_time = call
        .query
        .filled("sinceTime")
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .map(jiff::Timestamp::as_second);
    let request = LogRequest {
        container,
        follow: call.query.flag("follow"),
        previous: call.query.flag("previous"),
        timestamps: call.query.flag("timestamps"),
        tail_lines: number("tailLines"),
        since: since_seconds.or(since_time),
        limit_bytes: number("limitBytes"),
    };
    let reader = kubelet.logs(reference, request).await.map_err(|error| super::refuse(&error))?;
    // A log that breaks off ends; what was read stands.
    let frames = ReaderStream::new(reader)
        .take_while(|chunk| std::future::ready(chunk.is_ok()))
        .filter_map(|chunk| std::future::ready(chunk.ok().map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)))));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
