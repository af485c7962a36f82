//! Tells from the first bytes of a connection what is spoken on it.
//!
//! TLS by its ClientHello (server name and ALPN are read, nothing is decrypted), HTTP/2 by its preface, HTTP/1 by its
//! request line; other bytes are raw. Asks for more only while the bytes so far could still become one of these.
//! Never here: reading from sockets or waiting. Called by `listen::sniff`; fuzzable as it stands.

use crate::limits::SNIFF_BYTES_MAX;

/// What is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spoken {
    Tls(Hello),
    Http1 {
        /// HTTP/1.0 rather than 1.1.
        old: bool,
    },
    Http2,
    Raw,
}

/// What a ClientHello says in the clear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Vec<String>,
}

/// What the bytes so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Is(Spoken),
    /// Not enough to tell.
    More,
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method looked for; longer tokens are no HTTP that anyone speaks.
const METHOD_BYTES_MAX: usize = 24;

/// Judges the bytes so far.
pub(crate) fn judge(bytes: &[u8], tls: bool, http: bool) -> Verdict {
    if bytes.is_empty() {
        return Verdict::More;
    }
    if tls && bytes[0] == 0x16 {
        return match client_hello(bytes) {
            Read::Done(hello) => Verdict::Is(Spoken::Tls(hello)),
            Read::More if bytes.len() < SNIFF_BYTES_MAX => Verdict::More,
            Read::More | Read::Wrong => Verdict::Is(Spoken::Raw),
        };
    }
    if http {
        return judge_http(bytes);
    }
    Verdict::Is(Spoken::Raw)
}

fn judge_http(bytes: &[u8]) -> Verdict {
    let seen = bytes.len().min(H2_PREFACE.len());
    if bytes[..seen] == H2_PREFACE[..seen] {
        return if seen == H2_PREFACE.len() { Verdict::Is(Spoken::Http2) } else { Verdict::More };
    }
    // Empty lines before a request line are allowed (RFC 9112, 2.2).
    let start = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    if start > 4 {
        return Verdict::Is(Spoken::Raw);
    }
    let line = &bytes[start..];
    let method = line.iter().take_while(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_')).count();
    if method == line.len() {
        return if method <= METHOD_BYTES_MAX { Verdict::More } else { Verdict::Is(Spoken::Raw) };
    }
    if method == 0 || method > METHOD_BYTES_MAX || line[method] != b' ' {
        return Verdict::Is(Spoken::Raw);
    }
    // A line that has a control character is none, whether its end is there or not.
    let end = line.iter().position(|b| *b == b'\n');
    let text = &line[..end.unwrap_or(line.len())];
    if text.iter().any(|b| *b < 0x20 && *b != b'\r') {
        return Verdict::Is(Spoken::Raw);
    }
    if end.is_none() && bytes.len() < SNIFF_BYTES_MAX {
        return Verdict::More;
    }
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match end {
        Some(_) if text.ends_with(b" HTTP/1.1") => Verdict::Is(Spoken::Http1 { old: false }),
        Some(_) if text.ends_with(b" HTTP/1.0") => Verdict::Is(Spoken::Http1 { old: true }),
        Some(_) | None => Verdict::Is(Spoken::Raw),
    }
}

enum Read<T> {
    Done(T),
    More,
    Wrong,
}

/// A cursor over bytes that may not all be there yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |sum, b| (sum << 8) | usize::from(*b)))
    }

    /// A run of bytes after its own length.
    fn run(&mut self, length_bytes: usize) -> Option<&'a [u8]> {
        let count = self.number(length_bytes)?;
        self.take(count)
    }
}

/// Reads a ClientHello that may span several records (RFC 8446, 4.1.2 and 5.1).
fn client_hello(bytes: &[u8]) -> Read<Hello> {
    let mut message = Vec::new();
    let mut records = Bytes(bytes);
    loop {
        let Some(header) = records.take(5) else { return Read::More };
        if header[0] != 0x16 || header[1] != 3 {
            return Read::Wrong;
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > SNIFF_BYTES_MAX {
            return Read::Wrong;
        }
        message.extend_from_slice(&records.0[..length.min(records.0.len())]);
        if message.first().is_some_and(|kind| *kind != 1) {
            return Read::Wrong;
        }
        match message_length(&message) {
            Some(wanted) if wanted > SNIFF_BYTES_MAX => return Read::Wrong,
            Some(wanted) if message.len() >= wanted => {
                return parse_hello(&message[4..wanted]).map_or(Read::Wrong, Read::Done);
            }
            _ => {}
        }
        if records.take(length).is_none() {
            return Read::More;
        }
    }
}

/// Length of the handshake message with its header, once that is there.
fn message_length(message: &[u8]) -> Option<usize> {
    let mut bytes = Bytes(message.get(1..4)?);
    Some(4 + bytes.number(3)?)
}

fn parse_hello(body: &[u8]) -> Option<Hello> {
    let mut bytes = Bytes(body);
    bytes.take(2 + 32)?;
    bytes.run(1)?;
    bytes.run(2)?;
    bytes.run(1)?;
    let mut hello = Hello::default();
    if bytes.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Bytes(bytes.run(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut value = Bytes(extensions.run(2)?);
        match kind {
            0 => {
                let mut names = Bytes(value.run(2)?);
                while !names.0.is_empty() {
                    // Of other types nobody knows the form (RFC 6066, 3), nor where the next name begins.
                    if names.number(1)? != 0 {
                        break;
                    }
                    let name = names.run(2)?;
                    let name = std::str::from_utf8(name).ok()?;
                    // Some clients end it as DNS does; a server of TLS does not look at that.
                    hello.server_name = Some(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
                }
            }
            16 => {
                let mut names = Bytes(value.run(2)?);
                while !names.0.is_empty() {
                    hello.alpn.push(String::from_utf8_lossy(names.run(1)?).into_owned());
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(bytes: &[u8]) -> Verdict {
        judge(bytes, true, true)
    }

    /// A ClientHello as RFC 8446 lays it out.
    fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        fn run(width: usize, body: &[u8]) -> Vec<u8> {
            let mut out = body.len().to_be_bytes()[8 - width..].to_vec();
            out.extend_from_slice(body);
            out
        }
        let mut server = vec![0];
        server.extend(run(2, name.as_bytes()));
        let protocols: Vec<u8> = alpn.iter().flat_map(|p| run(1, p.as_bytes())).collect();
        let mut extensions = vec![0, 0];
        extensions.extend(run(2, &run(2, &server)));
        extensions.extend([0, 16]);
        extensions.extend(run(2, &run(2, &protocols)));
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(run(1, &[]));
        body.extend(run(2, &[0x13, 1]));
        body.extend(run(1, &[0]));
        body.extend(run(2, &extensions));
        let mut message = vec![1];
        message.extend(run(3, &body));
        message
    }

    fn record(body: &[u8]) -> Vec<u8> {
        let mut out = vec![0x16, 3, 1];
        out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_client_hello_gives_name_and_protocols_whole_or_in_pieces() {
        let wanted = Spoken::Tls(Hello { server_name: Some("a.test".into()), alpn: vec!["h2".into(), "istio".into()] });
        let message = hello("A.test", &["h2", "istio"]);
        let whole = record(&message);
        assert_eq!(is(&whole), Verdict::Is(wanted.clone()));
        for end in 1..whole.len() {
            assert_eq!(is(&whole[..end]), Verdict::More, "{end} bytes");
        }
        assert_eq!(is(&record(&hello("a.test.", &["h2", "istio"]))), Verdict::Is(wanted.clone()));
        let (first, second) = message.split_at(20);
        let split = [record(first), record(second)].concat();
        assert_eq!(is(&split), Verdict::Is(wanted));
    }

    #[test]
    fn http_is_told_by_its_first_line() {
        assert_eq!(is(b"GET / HTTP/1.1\r\n"), Verdict::Is(Spoken::Http1 { old: false }));
        assert_eq!(is(b"\r\nGET / HTTP/1.0\n"), Verdict::Is(Spoken::Http1 { old: true }));
        assert_eq!(is(b"GET /aaaa"), Verdict::More);
        assert_eq!(is(H2_PREFACE), Verdict::Is(Spoken::Http2));
        assert_eq!(is(b"PRI * HT"), Verdict::More);
        assert_eq!(is(b"PROPFIND / HTTP/1.1\r\n"), Verdict::Is(Spoken::Http1 { old: false }));
    }

    #[test]
    fn other_bytes_are_raw_at_once() {
        for bytes in
            [&b"\x00\x01"[..], b"get / HTTP/1.1\r\n", b"hello\n", b"GET / SPDY/3\r\n", b"EHLO a\r\n", b"\x16\x02"]
        {
            let verdict = is(bytes);
            assert!(verdict == Verdict::Is(Spoken::Raw) || bytes.len() < 5, "{bytes:?}: {verdict:?}");
        }
        assert_eq!(judge(b"GET / HTTP/1.1\r\n", true, false), Verdict::Is(Spoken::Raw));
    }

    /// It is raw from so many bytes on, in whatever pieces they come.
    fn raw_from(bytes: &[u8], from: usize) {
        for end in 1..=bytes.len() {
            let want = if end < from { Verdict::More } else { Verdict::Is(Spoken::Raw) };
            assert_eq!(is(&bytes[..end]), want, "{end} bytes of {bytes:?}");
        }
    }

    #[test]
    fn more_bytes_do_not_change_an_answer() {
        // A hello that says it is longer than what is looked at, in whole records.
        raw_from(&[record(&[1, 0xff, 0xff, 0xff]), record(b"x")].concat(), 9);
        raw_from(b"GET /\x01 HTTP/1.1\r\n", 6);
        raw_from(b"GET\t/ HTTP/1.1\r\n", 4);
    }

    #[test]
    fn a_broken_hello_is_raw_and_never_a_panic() {
        let whole = record(&hello("a.test", &["h2"]));
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                judge(&bytes, true, true);
            }
        }
    }
}
