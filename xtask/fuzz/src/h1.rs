//! The HTTP/1 readers of the proxy, as they stand.
//!
//! Never here: anything of their own. Used by the targets.

#[path = "../../../proxy/src/http/h1/chunk.rs"]
pub(crate) mod chunk;
#[path = "../../../proxy/src/http/h1/framing.rs"]
pub(crate) mod framing;
#[path = "../../../proxy/src/http/h1/head.rs"]
pub(crate) mod head;
#[path = "../../../proxy/src/http/h1/queue.rs"]
pub(crate) mod queue;
#[path = "../../../proxy/src/http/h1/request.rs"]
pub(crate) mod request;
#[path = "../../../proxy/src/http/h1/response.rs"]
pub(crate) mod response;
#[path = "../../../proxy/src/http/h1/spelling.rs"]
pub(crate) mod spelling;
pub(crate) mod tests;
#[path = "../../../proxy/src/http/h1/write.rs"]
pub(crate) mod write;
