//! One record per request: what it was and what became of it, written once, on every path.
//!
//! Begun when a head has been read, filled on the way, and finished when the reply's last byte has gone or when it is
//! dropped (the client went away). Finishing counts the metrics and writes the log line.
//! Never here: deciding anything. Held by `http::handle` and then by the reply's body.

pub(crate) mod format;
pub(crate) mod line;
pub(crate) mod second;
pub(crate) mod writer;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use api::table::RuleName;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, uri::PathAndQuery};
use tokio::time::Instant;

use crate::{
    metrics::{ConnectionKey, Flags, PartyId, Protocol, Reporter, RequestKey, Security, ServiceId},
    tcp::relay::Passed,
    worker::Worker,
};
pub(crate) use format::Format;

/// A compiled access log: where lines go and how they look.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) path: Arc<str>,
    pub(crate) format: Format,
    /// What lines show of a request's headers, in order: kept from its beginning.
    pub(crate) asked: Box<[format::Headers]>,
    /// What lines show of a reply's headers.
    pub(crate) replied: Box<[HeaderName]>,
}

impl Log {
    pub(crate) fn new(path: &str, format: Format) -> Self {
        let asked = format.request_headers().cloned().collect();
        let replied = format.reply_headers().cloned().collect();
        Self { path: path.into(), format, asked, replied }
    }
}

/// What is known of a connection from the peer; shared by its requests.
#[derive(Debug)]
pub(crate) struct Downstream {
    /// Address of the client: that of the direct peer, unless a PROXY header told another.
    pub(crate) remote: SocketAddr,
    /// Address of the direct peer.
    pub(crate) direct: SocketAddr,
    /// Address that it wanted.
    pub(crate) local: SocketAddr,
    pub(crate) server_name: Option<String>,
    /// The identity that it proved.
    pub(crate) identity: Option<api::name::SpiffeId>,
    /// The identity as principals are written, without `spiffe://`.
    pub(crate) principal: Option<String>,
    /// Whether the connection is TLS.
    pub(crate) tls: bool,
    /// Whether the peer is a proxy of ours, whose HTTP/1 requests ride HTTP/2 on it.
    pub(crate) ridden: bool,
    /// The whole `x-forwarded-client-cert` element for the peer's certificate.
    pub(crate) client_cert: Option<HeaderValue>,
}

/// Values of the request that the log line wants, kept from its beginning.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) original_path: Option<PathAndQuery>,
    pub(crate) authority: Option<HeaderValue>,
    pub(crate) https: bool,
    /// One value for each request header of the format, in its order.
    pub(crate) headers: Vec<Option<HeaderValue>>,
}

/// Authorization refused it.
#[derive(Debug)]
pub(crate) struct Denied {
    /// The rule that denies; none: no rule allows.
    pub(crate) rule: Option<Arc<str>>,
}

impl std::fmt::Display for Denied {
    /// As Envoy writes it in its details.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rbac_access_denied_matched_policy[{}]", self.rule.as_deref().unwrap_or("none"))
    }
}

/// Bytes that came from the client; shared with the body that brings them, where there is one.
#[derive(Debug, Default)]
pub(crate) struct Received(Option<Rc<Cell<u64>>>);

impl Received {
    pub(crate) fn get(&self) -> u64 {
        self.0.as_ref().map_or(0, |bytes| bytes.get())
    }

    fn set(&mut self, bytes: u64) {
        self.shared().set(bytes);
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.set(self.get() + bytes);
    }

    /// The count, for whoever takes the bytes.
    pub(crate) fn shared(&mut self) -> &Rc<Cell<u64>> {
        self.0.get_or_insert_default()
    }
}

/// How what passes a chain is recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recording<'a> {
    pub(crate) log: Option<&'a Arc<Log>>,
    /// Whether it is counted.
    pub(crate) counted: bool,
    pub(crate) reporter: Reporter,
}

/// What became of one request.
#[derive(Debug)]
pub(crate) struct Record {
    worker: Rc<Worker>,
    pub(crate) downstream: Rc<Downstream>,
    pub(crate) log: Option<Arc<Log>>,
    /// Whether it is counted.
    pub(crate) counted: bool,
    pub(crate) started: Instant,
    pub(crate) asked: Option<Box<Asked>>,
    pub(crate) version: Version,
    pub(crate) code: u16,
    pub(crate) flags: Flags,
    pub(crate) details: &'static str,
    pub(crate) denied: Option<Denied>,
    pub(crate) transport_failure: Option<Box<str>>,
    pub(crate) received: Received,
    pub(crate) sent: u64,
    /// Bytes of a connection, received and sent, that are counted already.
    reported: (u64, u64),
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) upstream_local: Option<SocketAddr>,
    pub(crate) cluster: Option<Arc<str>>,
    pub(crate) route: Option<RuleName>,
    pub(crate) service_time: Option<Duration>,
    pub(crate) replied: Option<Instant>,
    /// Headers of the reply that the log line wants.
    pub(crate) reply_headers: HeaderMap,
    pub(crate) reporter: Reporter,
    pub(crate) source: PartyId,
    pub(crate) destination: PartyId,
    pub(crate) service: ServiceId,
    pub(crate) protocol: Protocol,
    pub(crate) security: Security,
    pub(crate) grpc: Option<u8>,
    /// A connection without requests.
    tcp: bool,
    finished: bool,
}

impl Record {
    /// Begins the record of a request.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        downstream: &Rc<Downstream>,
        recording: Recording<'_>,
        version: Version,
    ) -> Self {
        worker.shared.stats.downstream_requests.up();
        worker.shared.stats.downstream_requests_total.add(1);
        Self::new(worker, downstream, recording, version)
    }

    /// Begins the record of a connection without requests.
    pub(crate) fn begin_tcp(worker: &Rc<Worker>, downstream: &Rc<Downstream>, recording: Recording<'_>) -> Self {
        let mut record = Self::new(worker, downstream, recording, crate::tcp::NO_VERSION);
        record.tcp = true;
        record
    }

    fn new(worker: &Rc<Worker>, downstream: &Rc<Downstream>, recording: Recording<'_>, version: Version) -> Self {
        let Recording { log, counted, reporter } = recording;
        let own = worker.shared.own.party;
        let (source, destination) = match reporter {
            Reporter::Source => (own, PartyId::default()),
            Reporter::Destination => (PartyId::default(), own),
        };
        Self {
            worker: Rc::clone(worker),
            downstream: Rc::clone(downstream),
            log: log.cloned(),
            counted,
            started: Instant::now(),
            asked: None,
            version,
            code: 0,
            flags: Flags::NONE,
            details: "",
            denied: None,
            transport_failure: None,
            received: Received::default(),
            sent: 0,
            reported: (0, 0),
            upstream: None,
            upstream_local: None,
            cluster: None,
            route: None,
            service_time: None,
            replied: None,
            reply_headers: HeaderMap::new(),
            reporter,
            source,
            destination,
            service: ServiceId::default(),
            protocol: Protocol::Http,
            security: match reporter {
                Reporter::Source => Security::Unknown,
                Reporter::Destination if downstream.identity.is_some() => Security::MutualTls,
                Reporter::Destination => Security::Nothing,
            },
            grpc: None,
            tcp: false,
            finished: false,
        }
    }

    fn connection_key(&self) -> ConnectionKey {
        let Self { reporter, source, destination, service, security, flags, .. } = self;
        ConnectionKey {
            reporter: *reporter,
            source: *source,
            destination: *destination,
            service: *service,
            security: *security,
            flags: *flags,
        }
    }

    /// The connection to the upstream is there.
    pub(crate) fn opened(&self) {
        if self.counted {
            self.worker.shard.connection(self.connection_key(), |series| {
                series.opened.fetch_add(1, Relaxed);
            });
        }
    }

    /// Takes what has passed on a connection so far, and counts what is new.
    pub(crate) fn passed(&mut self, passed: &Passed) {
        self.received.set(passed.received.get());
        self.sent = passed.sent.get();
        self.count_bytes();
    }

    fn count_bytes(&mut self) {
        let (received, sent) = (self.received.get(), self.sent);
        let new = (received.saturating_sub(self.reported.0), sent.saturating_sub(self.reported.1));
        if self.counted && new != (0, 0) {
            self.reported = (received, sent);
            self.worker.shard.connection(self.connection_key(), |series| {
                series.received.fetch_add(new.0, Relaxed);
                series.sent.fetch_add(new.1, Relaxed);
            });
        }
    }

    /// The time of day.
    pub(crate) fn clock(&self) -> api_rt::clock::Clock {
        self.worker.shared.clock
    }

    /// Adds a flag.
    pub(crate) fn flag(&mut self, flag: Flags) {
        self.flags = self.flags.with(flag);
    }

    /// The last byte of the reply has gone.
    pub(crate) fn finish(mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.finished = true;
        let shared = &self.worker.shared;
        let took = self.started.elapsed();
        if !self.tcp {
            shared.stats.downstream_requests.down();
        } else if self.counted {
            self.worker.shard.connection(self.connection_key(), |series| {
                series.closed.fetch_add(1, Relaxed);
            });
        }
        if self.counted && !self.tcp {
            let key = RequestKey {
                reporter: self.reporter,
                source: self.source,
                destination: self.destination,
                service: self.service,
                protocol: self.protocol,
                security: self.security,
                code: self.code,
                flags: self.flags,
                grpc: self.grpc,
            };
            self.worker.shard.request(key, |series| {
                series.total.fetch_add(1, Relaxed);
                series.duration.count_thousandths(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                series.request_bytes.count(self.received.get());
                series.response_bytes.count(self.sent);
            });
        }
        if let Some(log) = &self.log {
            let began = shared.clock.now().checked_sub(took).unwrap_or(std::time::UNIX_EPOCH);
            self.worker.lines.write(&self.worker, &log.path, |out| line::write(out, &log.format, self, began, took));
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished {
            self.flag(Flags::DOWNSTREAM_ENDED);
            if self.details.is_empty() {
                self.details = "downstream_remote_disconnect";
            }
            self.close();
        }
    }
}

/// A file's path, its lines, and how many they are.
type Waiting = (Arc<str>, Vec<u8>, u64);

/// Log lines of one worker that have not been handed over yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    waiting: RefCell<Vec<Waiting>>,
    /// They will be handed over soon, full or not.
    due: Cell<bool>,
    pub(crate) seconds: second::Seconds,
}

/// Lines are handed over at this size, or after [`FLUSH`].
const BATCH_BYTES: usize = 64 * 1024;
const FLUSH: Duration = Duration::from_millis(100);

impl Lines {
    fn write(&self, worker: &Rc<Worker>, path: &Arc<str>, line: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.waiting.borrow_mut();
        let at = match waiting.iter().position(|(known, _, _)| known == path) {
            Some(at) => at,
            None => {
                waiting.push((Arc::clone(path), Vec::with_capacity(4 * 1024), 0));
                waiting.len() - 1
            }
        };
        let (_, text, lines) = &mut waiting[at];
        line(text);
        *lines += 1;
        if text.len() >= BATCH_BYTES {
            let (path, text, lines) = waiting.swap_remove(at);
            worker.shared.log.send(path, text, lines);
        } else if !self.due.replace(true) {
            let worker = Rc::clone(worker);
            worker.clone().spawn(async move {
                tokio::time::sleep(FLUSH).await;
                worker.lines.due.set(false);
                worker.lines.flush(&worker);
            });
        }
    }

    /// Hands over all lines.
    pub(crate) fn flush(&self, worker: &Worker) {
        for (path, text, lines) in self.waiting.take() {
            worker.shared.log.send(path, text, lines);
        }
    }
}
