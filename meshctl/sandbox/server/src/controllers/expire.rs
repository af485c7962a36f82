//! Events go an hour after they were last told of, as a real cluster's do: else their number only grows.
//!
//! Never here: writing them (`event`). Run beside the other controllers.

use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};

use crate::limits::EVENTS_DELETED_AT_ONCE;

/// How long an event is kept after it was last told of.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Looks now and then, for as long as it is asked to run.
pub(super) async fn run(client: kube::Client) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(error) = sweep(&client, Timestamp::now()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old events were not removed");
        }
    }
}

/// Removes the events that are too old by `now`.
async fn sweep(client: &kube::Client, now: Timestamp) -> Result<(), kube::Error> {
    let all = Api::<Event>::all(client.clone()).list(&ListParams::default()).await?;
    let old = all.items.into_iter().filter(|event| is_old(event, now));
    let mut removed =
        futures::stream::iter(old.map(|event| remove(client, event))).buffer_unordered(EVENTS_DELETED_AT_ONCE);
    while let Some(done) = removed.next().await {
        done?;
    }
    Ok(())
}

fn is_old(event: &Event, now: Timestamp) -> bool {
    let seen = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let times = [
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        seen.map(|time| time.0),
    ];
    times.into_iter().flatten().max().is_some_and(|told| now.duration_since(told) > KEPT)
}

/// Removes an event, unless it has been told of again meanwhile.
async fn remove(client: &kube::Client, event: Event) -> Result<(), kube::Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
    let only = Preconditions { uid: event.metadata.uid, resource_version: event.metadata.resource_version };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    match api.delete(&event.metadata.name.unwrap_or_default(), &params).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        done => done.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use kube::api::PostParams;
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::{Options, Server, User};

    fn check(times: &Value, minutes: i64, old: bool) {
        let mut event = json!({ "metadata": {}, "involvedObject": {} });
        for (name, value) in times.as_object().unwrap() {
            event[name] = value.clone();
        }
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        assert_eq!(is_old(&from_value(event).unwrap(), now), old, "{times} after {minutes} minutes");
    }

    #[test]
    fn an_event_is_kept_for_an_hour_after_its_last_time() {
        let first = json!({ "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:30:00Z" });
        check(&first, 90, false);
        check(&first, 91, true);
        check(&json!({ "eventTime": "1970-01-01T00:00:00.000000Z" }), 61, true);
        let series = json!({ "count": 2, "lastObservedTime": "1970-01-01T00:30:00.000000Z" });
        check(&json!({ "eventTime": "1970-01-01T00:00:00.000000Z", "series": series }), 61, false);
    }

    #[tokio::test]
    async fn old_events_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::open(Options::new(folder.path())).unwrap();
        server.bootstrap().await.unwrap();
        let client = server.client(User::admin());
        let events: Api<Event> = Api::namespaced(client.clone(), "default");
        let event = json!({ "metadata": { "name": "a" }, "involvedObject": { "namespace": "default" } });
        events.create(&PostParams::default(), &from_value(event).unwrap()).await.unwrap();
        let now = Timestamp::now();
        sweep(&client, now).await.unwrap();
        assert_eq!(events.list(&ListParams::default()).await.unwrap().items.len(), 1);
        sweep(&client, now + SignedDuration::from_mins(61)).await.unwrap();
        assert_eq!(events.list(&ListParams::default()).await.unwrap().items.len(), 0);
    }
}
