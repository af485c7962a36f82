//! One leader among several copies of a program, by a Lease.
//!
//! A holder renews; the others watch its renewals by their own clock and take over when these stop.
//! Never here: what a leader does. Used by pilot for status and by whoever else must write alone.

#[cfg(test)]
mod tests;

use std::time::Duration;

use api_rt::clock::Clock;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::client::{is_conflict, is_not_found};

/// How long a lease is good after its last renewal.
const LENGTH: Duration = Duration::from_secs(15);
/// How often it is renewed or looked at.
const STEP: Duration = Duration::from_secs(2);
/// A leader that could not renew for this long stops leading, before anyone else may begin.
const GIVE_UP: Duration = Duration::from_secs(10);

/// One candidate.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    me: String,
    clock: Clock,
    leads: watch::Sender<bool>,
    /// The holder and renewal seen last, and when by our own clock.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Candidate {
    /// A candidate for the lease of this name, under its own unique name (the Pod's).
    pub fn new(client: Client, namespace: &str, name: &str, me: &str, clock: Clock) -> Self {
        let leads = watch::Sender::new(false);
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: me.to_owned(),
            clock,
            leads,
            seen: None,
        }
    }

    /// Whether this candidate leads, now and later.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    fn held(&self, taken_over: Option<&LeaseSpec>) -> LeaseSpec {
        let now = jiff::Timestamp::try_from(self.clock.now()).map(MicroTime).ok();
        let before = taken_over.filter(|spec| spec.holder_identity.as_deref() == Some(self.me.as_str()));
        let transitions = taken_over.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            acquire_time: before.map_or_else(|| now.clone(), |spec| spec.acquire_time.clone()),
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(LENGTH.as_secs()).ok(),
            lease_transitions: Some(if taken_over.is_some() && before.is_none() {
                transitions + 1
            } else {
                transitions
            }),
            renew_time: now,
            ..LeaseSpec::default()
        }
    }

    /// Looks once; true: this candidate holds the lease.
    async fn step(&mut self) -> Result<bool, kube::Error> {
        let mut lease = match self.api.get(&self.name).await {
            Ok(lease) => lease,
            Err(error) if is_not_found(&error) => {
                let mut lease = Lease { spec: Some(self.held(None)), ..Lease::default() };
                lease.metadata.name = Some(self.name.clone());
                return match self.api.create(&PostParams::default(), &lease).await {
                    Ok(_) => Ok(true),
                    Err(error) if is_conflict(&error) => Ok(false),
                    Err(error) => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.me && !holder.is_empty() && !self.has_lapsed(&spec) {
            return Ok(false);
        }
        lease.spec = Some(self.held(Some(&spec)));
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the holder has not renewed for the lease's length, measured here: its clock may be wrong.
    fn has_lapsed(&mut self, spec: &LeaseSpec) -> bool {
        let now = self.clock.instant();
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let length =
                    spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(LENGTH.as_secs());
                now.duration_since(*since) > Duration::from_secs(length)
            }
            Some(_) | None => {
                self.seen = Some((spec.clone(), now));
                false
            }
        }
    }

    /// Takes part until stopped; a leader that stops gives the lease back, so that another begins at once.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut renewed: Option<Instant> = None;
        while !stop.is_cancelled() {
            match self.step().await {
                Ok(true) => renewed = Some(self.clock.instant()),
                Ok(false) => renewed = None,
                Err(error) => tracing::warn!(lease = self.name, %error, "could not renew or look at the lease"),
            }
            let leads = renewed.is_some_and(|at| self.clock.instant().duration_since(at) < GIVE_UP);
            let before = self.leads.send_replace(leads);
            if before != leads {
                tracing::info!(lease = self.name, leads, "leadership changed");
            }
            if stop.run_until_cancelled(self.clock.sleep(STEP)).await.is_none() {
                break;
            }
        }
        if self.leads.send_replace(false) {
            self.give_back().await;
        }
    }

    async fn give_back(&self) {
        let given = async {
            let mut lease = self.api.get(&self.name).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) {
                spec.holder_identity = None;
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = given.await {
            tracing::info!(lease = self.name, %error, "could not give the lease back; it will lapse");
        }
    }
}
