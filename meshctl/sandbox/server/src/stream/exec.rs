//! exec and attach.

use http::Response;
use hyper::upgrade::OnUpgrade;

use crate::core::Core;
use crate::reply::{Body, Refusal};
use crate::verb::Call;

pub(crate) fn run(core: &Core, call: &Call, upgrade: Option<OnUpgrade>) -> Result<Response<Body>, Refusal> {
    let _ = (super::pod(core, call)?, upgrade);
    Err(super::no_node())
}
