//! Mixer's kinds of config.istio.io: the job each had, and which object of today does it.
//!
//! Mixer's rules were programs over attributes; they have no translation field by field. Each is told the object to write, with an example.
//! Never here: routing. Called by `instead`.

use serde_json::json;

use super::{draft::Draft, kinds, part::Part};
use crate::object::Kind;

/// What a part of Mixer's configuration was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// Metrics of requests and connections.
    Metrics,
    /// Access logs.
    Logs,
    /// Spans.
    Traces,
    /// Refusing requests, by a list or altogether.
    Deny,
    /// Asking someone else whether a request may pass.
    Ask,
    /// Rate limits.
    Quota,
    /// Attributes about requests and workloads, which the proxies now know themselves.
    Attributes,
    /// Keys of API clients.
    ApiKeys,
    /// An adapter or template of one's own.
    Plugin,
}

/// Says what does that job today.
pub(super) fn job(draft: &mut Draft<'_>, job: Job) {
    let name = draft.name();
    match job {
        Job::Metrics => {
            draft.info("", "proxies report Istio's standard metrics to Prometheus by themselves; write a Telemetry only to change them");
            draft.lost("", "dimensions and values of one's own: as tagOverrides of the Telemetry");
            let metrics = json!([{ "providers": [{ "name": "prometheus" }], "overrides": [
                { "match": { "metric": "ALL_METRICS" }, "tagOverrides": { "example": { "value": "request.host" } } }] }]);
            draft.write(Kind::Telemetry, &name, json!({ "metrics": metrics }));
        }
        Job::Logs => {
            draft.info("", "proxies write access logs themselves, where MeshConfig's accessLogFile or a Telemetry says so");
            draft.lost("", "variables of one's own: as MeshConfig's accessLogFormat");
            draft.write(Kind::Telemetry, &name, json!({ "accessLogging": [{ "providers": [{ "name": "envoy" }] }] }));
        }
        Job::Traces => {
            draft.info("", "proxies send spans themselves; the provider stands in MeshConfig's extensionProviders");
            let tracing = json!([{ "providers": [{ "name": "zipkin" }], "randomSamplingPercentage": 1 }]);
            draft.write(Kind::Telemetry, &name, json!({ "tracing": tracing }));
        }
        Job::Deny => {
            draft.lost("", "match and list: say who is refused in `rules`; as it stands every request is");
            draft.write(Kind::AuthorizationPolicy, &name, json!({ "action": "DENY", "rules": [{}] }));
        }
        Job::Ask => {
            draft.info("", "the one who is asked stands in MeshConfig's extensionProviders, under the name that the policy gives");
            let spec = json!({ "action": "CUSTOM", "provider": { "name": name }, "rules": [{}] });
            draft.write(Kind::AuthorizationPolicy, &name, spec);
        }
        Job::Quota => draft.lost("", "rate limits are an EnvoyFilter with envoy.filters.http.local_ratelimit, or envoy.filters.http.ratelimit and its server"),
        Job::Attributes => draft.info("", "proxies know these attributes themselves: delete it"),
        Job::ApiKeys => draft.lost("", "check keys with an AuthorizationPolicy whose `when` reads request.headers[x-api-key], or in a RequestAuthentication"),
        Job::Plugin => draft.lost("", "code of one's own runs in the proxies as a WasmPlugin, or behind an AuthorizationPolicy of action CUSTOM"),
    }
}

/// Says it for a kind whose job is told by the adapter or template that it names.
pub(super) fn by_name(draft: &mut Draft<'_>, field: &str, spec: &Part) {
    let mut spec = spec.clone();
    let named = match field {
        "actions" => spec.parts("actions").into_iter().find_map(|mut action| {
            let handler = action.text("handler")?;
            // `denyall.denier`, `denyall.denier.istio-system`: the adapter is the second word.
            handler.split('.').nth(1).map(str::to_owned)
        }),
        field => spec.text(field),
    };
    match named.and_then(|name| kinds::job_of(&name)) {
        Some(known) => job(draft, known),
        None => {
            let spec = "Telemetry (metrics, logs, spans), AuthorizationPolicy (refusing, asking others), EnvoyFilter (rate limits) or WasmPlugin (code of one's own)";
            draft.lost("", format!("which adapter it is for cannot be told from it; its job is done by {spec}"));
        }
    }
}
