//! The codecs that read requests from a connection: the seam behind which HTTP/1 and HTTP/2 stand.
//!
//! Everything a codec is told is here: limits, timers, graceful end. What a request means is `handle`'s.
//! Never here: routing, TLS. Called by `listen::serve`.

use std::{convert::Infallible, error::Error, io, pin::pin, rc::Rc, time::Duration};

use api::spec::Direction;
use http::{Request, Response};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::watch, time::Instant};

use super::{
    Conn,
    body::Reply,
    h1::{self, spelling::Spelling},
    h2::{
        guard::Guard,
        meter::{Look, Meter, Side},
    },
    handle,
    incoming::Incoming,
    ride,
};
use crate::{
    io::Io,
    limits::{
        H2_EDGE, H2_ERROR_RESETS_MAX, H2_HEADER_LIST_BYTES_MAX, H2_LOOK, H2_MEMBER, H2_MESH, H2_NEAR, H2_PING,
        H2_RIDDEN, H2_RIDDEN_LIST_BYTES_MAX, H2_SEND_BUFFER_BYTES, H2_STRANGER,
    },
    overload::Step,
    worker::{Here, Phase},
};

/// Waits until the connection should end, and says how: first gently, then soon.
async fn ending(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    // The sender lives as long as the process.
    if phase.wait_for(|phase| *phase >= at_least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Http1(#[from] io::Error),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

/// Serves HTTP/1 until the connection ends. Waiting for the phase wakes it when memory is short, too.
pub(crate) async fn serve_http1(conn: Rc<Conn>, io: Io, idle_timeout: Duration) -> Result<(), ServeError> {
    let mut phase = conn.worker.shared.phase.subscribe();
    let closing = async move { ending(&mut phase, Phase::Closing).await };
    Ok(h1::server::serve(conn, io, idle_timeout, closing).await?)
}

/// Whether a connection was idle for as long as it may; `zero`: it may for ever.
fn idled(timeout: Duration, time: Duration) -> bool {
    !timeout.is_zero() && time >= timeout
}

/// Answers one request that came on HTTP/2, whether it is of it or rode it.
async fn answer(conn: Rc<Conn>, request: Request<hyper::body::Incoming>) -> Result<Response<Reply>, Infallible> {
    let ridden = conn.downstream.ridden;
    let (mut parts, body) = request.into_parts();
    let spelling = if ridden { ride::take_off(&mut parts) } else { Spelling::default() };
    let mut response = handle(conn, Request::from_parts(parts, Incoming::request(body, spelling))).await;
    if ridden {
        let names = response.body().spelling().and_then(Spelling::text);
        ride::mount_names(response.headers_mut(), names);
    }
    Ok(response)
}

/// Serves HTTP/2 until the connection ends.
pub(crate) async fn serve_http2(conn: Rc<Conn>, io: Io, idle_timeout: Duration) -> Result<(), ServeError> {
    let worker = Rc::clone(&conn.worker);
    let overload = &worker.shared.overload;
    let mut phase = worker.shared.phase.subscribe();
    let (room, budget) = match (&conn.downstream.principal, conn.direction) {
        (Some(_), Direction::Inbound) if conn.downstream.ridden => (&H2_RIDDEN, &H2_MEMBER),
        (Some(_), Direction::Inbound) => (&H2_MESH, &H2_MEMBER),
        (_, Direction::Gateway) => (&H2_EDGE, &H2_STRANGER),
        (_, Direction::Inbound | Direction::Outbound) => (&H2_NEAR, &H2_STRANGER),
    };
    let head_bytes = if conn.downstream.ridden { H2_RIDDEN_LIST_BYTES_MAX } else { H2_HEADER_LIST_BYTES_MAX };
    let (guard, guarded) = Guard::new(io, Meter::new(Side::Server, budget, Instant::now()));
    let service = service_fn(move |request| answer(Rc::clone(&conn), request));
    let mut builder = http2::Builder::new(Here);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(room.stream_bytes)
        .initial_connection_window_size(room.connection_bytes)
        .max_frame_size(room.frame_bytes)
        .max_concurrent_streams(room.streams)
        .max_header_list_size(head_bytes)
        .max_local_error_reset_streams(H2_ERROR_RESETS_MAX)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .keep_alive_interval(H2_PING.0)
        .keep_alive_timeout(H2_PING.1);
    // GOAWAY: the peer opens its next stream on a new connection, those under way end. A connection that was made while
    // draining serves until the end: the peer had nowhere else to go.
    let until = if *phase.borrow() == Phase::Serving { Phase::Draining } else { Phase::Closing };
    let ended = {
        let mut connection = pin!(builder.serve_connection(TokioIo::new(guarded), service));
        let mut looks = tokio::time::interval(H2_LOOK);
        let mut leaving = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = ending(&mut phase, until), if !leaving => leaving = true,
                _ = looks.tick() => match guard.look() {
                    Look::Over(_) => break Ok(()),
                    Look::Busy | Look::Idle(_) if overload.step() >= Step::Parting => leaving = true,
                    Look::Idle(time) if idled(overload.idle(idle_timeout), time) => leaving = true,
                    Look::Busy | Look::Idle(_) => continue,
                },
            }
            connection.as_mut().graceful_shutdown();
        }
    };
    let told = ended.as_ref().copied().map_err(|error| error as &(dyn Error + 'static));
    guard.farewell(told, &worker.shared.stats, "downstream").await;
    Ok(ended?)
}
