//! What the server answers with.
//!
//! [`Body`] is either whole or a stream (watches, logs). Never here: which answer.
//! Called by every handler; the rim writes it to the socket.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

/// A response's body: whole, or a stream that is flushed chunk by chunk.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
