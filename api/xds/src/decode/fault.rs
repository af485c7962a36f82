//! Faults made on purpose, from the settings that routes have for filters.
//!
//! Never here: injecting them. Called by `route` and `routes`.

use std::collections::HashMap;

use api::{
    name::Percent,
    spec::{AbortWith, Fault},
};
use envoy_types::pb::{
    envoy::extensions::filters::{
        common::fault::v3::fault_delay::FaultDelaySecifier,
        http::fault::v3::{HttpFault, fault_abort::ErrorType},
    },
    google::protobuf,
};

use super::{DecodeError, In, http, read};

/// The faults among settings for filters; other settings must be of filters that guard nothing.
pub(super) fn fault(
    input: &mut In<'_>,
    path: &str,
    raw: &HashMap<String, protobuf::Any>,
) -> Result<Option<Fault>, DecodeError> {
    let mut fault = None;
    for (name, any) in raw {
        let path = format!("{path}[{name}]");
        if any.type_url == <HttpFault as prost::Name>::type_url() {
            let message: HttpFault = read::message(input, &path, any)?;
            fault = Some(http_fault(input, &path, &message)?);
        } else if http::guards_nothing(name, &any.type_url) {
            input.note(path, "not honoured");
        } else {
            return Err(input.guards(path, format!("settings of {name} are not honoured")));
        }
    }
    Ok(fault)
}

fn http_fault(input: &mut In<'_>, path: &str, raw: &HttpFault) -> Result<Fault, DecodeError> {
    input.ignore(raw.response_rate_limit.is_some(), path, ".response_rate_limit");
    if !raw.headers.is_empty() || !raw.upstream_cluster.is_empty() || !raw.downstream_nodes.is_empty() {
        input.note(path, "faults for some requests only are not injected");
        return Ok(Fault::default());
    }
    let delay = match &raw.delay {
        None => None,
        Some(delay) => match &delay.fault_delay_secifier {
            Some(FaultDelaySecifier::FixedDelay(length)) => {
                let share =
                    delay.percentage.as_ref().map_or(Ok(Percent::NONE), |share| read::share(input, path, share))?;
                Some((read::duration(input, path, length)?, share))
            }
            Some(FaultDelaySecifier::HeaderDelay(_)) | None => {
                input.note(format!("{path}.delay"), "delays given by headers are not injected");
                None
            }
        },
    };
    let abort = match &raw.abort {
        None => None,
        Some(abort) => {
            let share = abort.percentage.as_ref().map_or(Ok(Percent::NONE), |share| read::share(input, path, share))?;
            match abort.error_type {
                Some(ErrorType::HttpStatus(status)) => {
                    Some((AbortWith::Http(read::status(input, path, status)?), share))
                }
                Some(ErrorType::GrpcStatus(status)) => Some((AbortWith::Grpc(status), share)),
                Some(ErrorType::HeaderAbort(_)) | None => {
                    input.note(format!("{path}.abort"), "aborts given by headers are not injected");
                    None
                }
            }
        }
    };
    Ok(Fault { delay, abort })
}
