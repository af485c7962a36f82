//! HOT. One request, from its head to its reply, as a list of steps.
//!
//! Holds one table from beginning to end; each step is a plain function in a file of its own, and what can go wrong is
//! one closed [`Failure`], turned into a reply in one place.
//! Never here: sockets, codecs, or any decision (`api` decides). Called by `listen::serve` for each request.

pub(crate) mod attempt;
pub(crate) mod authorize;
pub(crate) mod body;
pub(crate) mod codec;
pub(crate) mod failure;
pub(crate) mod fault;
pub(crate) mod formats;
pub(crate) mod gate;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod headers;
pub(crate) mod host;
pub(crate) mod incoming;
pub(crate) mod mirror;
pub(crate) mod reply;
pub(crate) mod retry;
pub(crate) mod rewrite;
pub(crate) mod ride;
pub(crate) mod select;
pub(crate) mod upgrade;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use api::{
    spec::{Direction, HttpServer},
    table::Chain,
};
use http::{Request, Response, Version, request::Parts};

use crate::{
    access::{Downstream, Record, Recording},
    metrics::Reporter,
    table::{ChainExtra, Tables},
    worker::Worker,
};
use body::{Reply, Upload};
use failure::Failure;
use h1::request::Oldest;
use host::LastHost;
use incoming::Incoming;
use reply::Answer;
use select::Choice;

/// One connection that carries requests.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) worker: Rc<Worker>,
    pub(crate) downstream: Rc<Downstream>,
    /// Where the client wanted to go.
    pub(crate) original: SocketAddr,
    pub(crate) direction: Direction,
    /// Bytes of the request heads under way.
    pub(crate) heads: Cell<usize>,
    pub(crate) host: LastHost,
    view: RefCell<View>,
}

/// The table that a request uses, and the chain of its connection in that table.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) tables: Arc<Tables>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) extra: Arc<ChainExtra>,
    /// False: the chain is in no table any more; the connection is to end.
    pub(crate) current: bool,
}

impl Conn {
    pub(crate) fn new(worker: Rc<Worker>, downstream: Downstream, original: SocketAddr, view: View) -> Self {
        let direction = view.chain.listener().direction;
        Self {
            worker,
            downstream: Rc::new(downstream),
            original,
            direction,
            heads: Cell::new(0),
            host: LastHost::default(),
            view: RefCell::new(view),
        }
    }

    /// How long nothing may pass on the connection; zero: for ever.
    fn idle_timeout(&self) -> Duration {
        self.view().chain.http().map_or(Duration::ZERO, |server| server.idle_timeout)
    }

    /// The newest table, and this connection's chain in it.
    fn view(&self) -> View {
        let newest = self.worker.shared.tables.load();
        let mut view = self.view.borrow_mut();
        if newest.version != view.tables.version {
            let successor = newest.table.successor(&view.chain);
            match successor.and_then(|chain| Some((chain, newest.extra(chain)?))) {
                Some((chain, extra)) => {
                    let (chain, extra) = (Arc::clone(chain), Arc::clone(extra));
                    *view = View { tables: Arc::clone(&newest), chain, extra, current: true };
                }
                None => view.current = false,
            }
        }
        view.clone()
    }

    /// The oldest version of HTTP that is served on it.
    fn oldest(&self) -> Oldest {
        let served = self.view.borrow().chain.http().is_some_and(|server| server.http10);
        if served { Oldest::Http10 } else { Oldest::Http11 }
    }

    fn begin(&self, view: &View, version: Version) -> Record {
        let reporter = match self.direction {
            Direction::Inbound => Reporter::Destination,
            Direction::Outbound | Direction::Gateway => Reporter::Source,
        };
        let counted = view.chain.http().is_some_and(|server| server.metrics);
        let recording = Recording { log: view.extra.log.as_ref(), counted, reporter };
        Record::begin(&self.worker, &self.downstream, recording, version)
    }
}

/// Answers one request.
pub(crate) async fn handle(conn: Rc<Conn>, request: Request<Incoming>) -> Response<Reply> {
    let view = conn.view();
    let version = request.version();
    let mut record = conn.begin(&view, version);
    let (mut parts, incoming) = request.into_parts();
    let grpc = gate::is_grpc(&parts.headers);
    let mut response = match steps(&conn, &view, &mut parts, incoming, &mut record).await {
        Ok(Answer::Upstream { response, lease, deadline }) => reply::from_upstream(response, lease, deadline, record),
        Ok(Answer::Own { status, headers, body }) => reply::own(status, headers, body, record),
        Err(failure) => reply::from_failure(&failure, grpc, &conn, record),
    };
    reply::finish(&conn, &view, version, &mut response);
    response
}

/// Answers what the codec could not read as a request.
pub(crate) fn refuse(conn: &Conn, failure: &Failure) -> Response<Reply> {
    let view = conn.view();
    let record = conn.begin(&view, Version::HTTP_11);
    let mut response = reply::from_failure(failure, false, conn, record);
    reply::finish(conn, &view, Version::HTTP_11, &mut response);
    response
}

/// The steps, in order.
async fn steps(
    conn: &Rc<Conn>,
    view: &View,
    parts: &mut Parts,
    incoming: Incoming,
    record: &mut Record,
) -> Result<Answer, Failure> {
    let server: &HttpServer = view.chain.http().ok_or(Failure::NoRoute)?;
    let asked = gate::admit(conn, server, parts, record)?;
    let choice = {
        let head = gate::head(parts, conn, server)?;
        authorize::check(&view.chain.authorization, conn, &head)?;
        select::way(view, conn, &head, record)?
    };
    let way = match choice {
        Choice::Answer(answer) => return Ok(answer),
        Choice::Way(way) => way,
    };
    fault::inject(way.rule, &conn.worker, record).await?;
    rewrite::request(conn, &way, parts, record);
    let upload = Upload::new(incoming, way.keep_bytes(), &mut record.received);
    mirror::at_once(conn, view, &way, parts, &upload);
    let answer = retry::run(conn, &way, &asked, parts, &upload, record).await;
    mirror::afterwards(conn, view, &way, parts, &upload);
    answer
}
