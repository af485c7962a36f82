//! What the readers make of bytes, in words that tests compare; and what hyper makes of them.
//!
//! Never here: expectations. Used by the tests beside it and by the fuzz targets.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use bytes::BytesMut;
use http::HeaderMap;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::super::{
    framing::{Cutter, Framing, Next},
    head::Announced,
    request::{Oldest, Reader, Request},
    response::{self, Expected},
};

/// What a reader made of some bytes, in words.
#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    /// Takes a body to its end; false: it needs more, or it is broken.
    fn body(&mut self, cutter: &mut Cutter, text: &mut Vec<u8>, bytes: &mut BytesMut, ended: bool) -> Option<bool> {
        loop {
            match cutter.next(bytes, ended) {
                Ok(Next::Data(data)) => text.extend_from_slice(&data),
                Ok(Next::Trailers(trailers)) => self.0.push(fields(&trailers)),
                Ok(Next::More) => return Some(false),
                Ok(Next::End) => {
                    self.text(text);
                    return Some(true);
                }
                Err(error) => {
                    self.text(text);
                    self.0.push(format!("{error:?}"));
                    return None;
                }
            }
        }
    }

    fn text(&mut self, text: &mut Vec<u8>) {
        if !text.is_empty() {
            self.0.push(format!("\"{}\"", text.escape_ascii()));
            text.clear();
        }
    }
}

pub(crate) fn fields(headers: &HeaderMap) -> String {
    headers.iter().map(|(name, value)| format!("{name}={};", value.as_bytes().escape_ascii())).collect()
}

pub(crate) fn framing(announced: Announced) -> Framing {
    match announced {
        Announced::Nothing => Framing::Length(0),
        Announced::Length(length) => Framing::Length(length),
        Announced::Chunked => Framing::Chunked,
    }
}

/// The pieces that `cuts` make of bytes.
pub(crate) fn pieces<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// What comes of a client's bytes: its requests and bodies, or where they are refused.
pub(crate) fn requests(input: &[u8], cuts: &[usize], show: impl Fn(&Request) -> String) -> String {
    let mut said = Said::default();
    let (mut bytes, mut text) = (BytesMut::new(), Vec::new());
    let (mut reader, mut body) = (Reader::new(Oldest::Http10), None::<Cutter>);
    let all = pieces(input, cuts);
    for (at, piece) in all.iter().chain([&&b""[..]]).enumerate() {
        bytes.extend_from_slice(piece);
        loop {
            match &mut body {
                None => match reader.read(&mut bytes) {
                    Ok(None) => break,
                    Ok(Some(request)) => {
                        said.0.push(show(&request));
                        body = Some(Cutter::new(framing(request.body)));
                        reader = Reader::new(Oldest::Http10);
                    }
                    Err(error) => {
                        said.0.push(format!("{error:?}"));
                        return said.0.join(" ");
                    }
                },
                Some(cutter) => match said.body(cutter, &mut text, &mut bytes, at == all.len()) {
                    Some(true) => body = None,
                    Some(false) => break,
                    None => return said.0.join(" "),
                },
            }
        }
    }
    said.0.join(" ")
}

/// What comes of an upstream's bytes.
pub(crate) fn reply(
    input: &[u8],
    cuts: &[usize],
    expected: Expected,
    show: impl Fn(&response::Response) -> String,
) -> String {
    let mut said = Said::default();
    let (mut bytes, mut text) = (BytesMut::new(), Vec::new());
    let (mut reader, mut body) = (response::Reader::new(), None::<Cutter>);
    let all = pieces(input, cuts);
    for (at, piece) in all.iter().chain([&&b""[..]]).enumerate() {
        bytes.extend_from_slice(piece);
        if body.is_none() {
            match reader.read(&mut bytes, expected) {
                Ok(None) => continue,
                Ok(Some(response)) => {
                    said.0.push(show(&response));
                    body = Some(Cutter::new(response.framing));
                }
                Err(error) => return format!("{error:?}"),
            }
        }
        if let Some(cutter) = &mut body {
            match said.body(cutter, &mut text, &mut bytes, at == all.len()) {
                Some(true) | None => break,
                Some(false) => {}
            }
        }
    }
    if body.as_ref().is_some_and(Cutter::is_done) && !bytes.is_empty() {
        said.0.push(format!("left {}", bytes.len()));
    }
    said.0.join(" ")
}

/// What hyper makes of a client's bytes: method, target, version and fields of each request, and its body.
pub(crate) fn by_hyper(input: &[u8]) -> Vec<(String, Vec<u8>)> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(input).await.unwrap();
        client.shutdown().await.unwrap();
        let noted = Rc::clone(&seen);
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let noted = Rc::clone(&noted);
            async move {
                let (parts, body) = request.into_parts();
                let head = format!("{} {} {:?} {}", parts.method, parts.uri, parts.version, fields(&parts.headers));
                if let Ok(body) = body.collect().await {
                    noted.borrow_mut().push((head, body.to_bytes().to_vec()));
                }
                Ok::<_, Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
            }
        });
        let serving =
            hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
        // However it ends: what was read before counts.
        drop(serving.await);
    });
    Rc::try_unwrap(seen).unwrap().into_inner()
}

/// The same by our reader.
pub(crate) fn by_us(input: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut bytes = BytesMut::from(input);
    let mut seen = Vec::new();
    while let Ok(Some(request)) = Reader::new(Oldest::Http10).read(&mut bytes) {
        let parts = &request.parts;
        let head = format!("{} {} {:?} {}", parts.method, parts.uri, parts.version, fields(&parts.headers));
        let mut cutter = Cutter::new(framing(request.body));
        let mut body = Vec::new();
        loop {
            match cutter.next(&mut bytes, true) {
                Ok(Next::Data(data)) => body.extend_from_slice(&data),
                Ok(Next::Trailers(_)) => {}
                Ok(Next::End) => break,
                Ok(Next::More) | Err(_) => return seen,
            }
        }
        seen.push((head, body));
        if !request.keep_alive {
            break;
        }
    }
    seen
}

/// Method, target, version and fields of a request.
pub(crate) fn whole(request: &Request) -> String {
    let parts = &request.parts;
    format!("[{} {} {:?} {}]", parts.method, parts.uri, parts.version, fields(&parts.headers))
}

/// Status, framing and fields of a reply.
pub(crate) fn whole_reply(reply: &response::Response) -> String {
    format!("[{} {:?} {}]", reply.parts.status, reply.framing, fields(&reply.parts.headers))
}

/// What must hold for a client's bytes; gives how many requests both we and hyper took.
pub(crate) fn request_laws(input: &[u8]) -> usize {
    let at_once = requests(input, &[], whole);
    let each: Vec<usize> = (0..input.len()).collect();
    assert_eq!(requests(input, &each, whole), at_once, "byte by byte");
    assert_eq!(requests(input, &[input.len() / 2, input.len() / 3], whole), at_once, "in three pieces");
    let (ours, hypers) = (by_us(input), by_hyper(input));
    let both = ours.len().min(hypers.len());
    assert_eq!(ours[..both], hypers[..both], "hyper reads otherwise");
    both
}

/// What must hold for an upstream's bytes.
pub(crate) fn reply_laws(input: &[u8]) {
    let expected = Expected { bodiless: false, upgrade: false };
    // What comes after the reply depends on when it comes.
    let read = |cuts: &[usize]| {
        let said = reply(input, cuts, expected, whole_reply);
        said.split(" left ").next().unwrap_or_default().to_owned()
    };
    let each: Vec<usize> = (0..input.len()).collect();
    assert_eq!(read(&each), read(&[]), "byte by byte");
}
