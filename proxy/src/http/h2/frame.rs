//! Finds HTTP/2 frames in a stream of bytes, whatever pieces the bytes come in.
//!
//! Only the nine bytes of a frame's head are read; of payloads only those that somebody asks for. Nothing is copied but
//! a head that lies across two pieces.
//! Never here: what a frame means, or how many of them are too many (`meter`). Used by `meter` for both directions.

use super::Excess;

/// Length of a frame's head (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;

/// END_STREAM of DATA and HEADERS; ACK of SETTINGS and PING.
pub(super) const END_STREAM: u8 = 0x1;
/// ACK of SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
/// END_HEADERS of HEADERS, PUSH_PROMISE and CONTINUATION.
pub(super) const END_HEADERS: u8 = 0x4;
/// PADDED of DATA, HEADERS and PUSH_PROMISE.
pub(super) const PADDED: u8 = 0x8;
/// PRIORITY of HEADERS.
pub(super) const PRIORITY: u8 = 0x20;

/// Types of frames (RFC 9113, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// PRIORITY_UPDATE (RFC 9218), which browsers send for each request.
    PriorityUpdate,
    Unknown,
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    fn read(raw: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = raw;
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            0x10 => Kind::PriorityUpdate,
            _ => Kind::Unknown,
        };
        let length = u32::from_be_bytes([0, a, b, c]);
        Self { length, kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) }
    }

    /// Whether a flag is set.
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Who looks at frames.
pub(super) trait Sink {
    /// A frame begins; says whether its payload is wanted.
    fn head(&mut self, head: Head) -> Result<bool, Excess>;
    /// A piece of a payload that was wanted, and whether it is the last.
    fn payload(&mut self, piece: &[u8], last: bool) -> Result<(), Excess>;
}

/// Where reading stopped: so many bytes may pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) after: usize,
    pub(super) excess: Excess,
}

/// The place in a stream of frames.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Bytes of the preface or of a payload that are still to come.
    rest: usize,
    wanted: bool,
    /// Bytes of a head that have come.
    have: usize,
    part: [u8; HEAD_BYTES],
}

impl Scanner {
    /// Begins with so many bytes that are no frames: the client's preface.
    pub(super) fn new(preface: usize) -> Self {
        Self { rest: preface, wanted: false, have: 0, part: [0; HEAD_BYTES] }
    }

    /// Whether no frame is under way.
    pub(super) fn between(&self) -> bool {
        self.rest == 0 && self.have == 0
    }

    /// How many bytes end the frame under way, as far as they can be told.
    pub(super) fn rest(&self) -> usize {
        self.rest
    }

    /// Reads on.
    pub(super) fn scan(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Stopped> {
        let mut at = 0;
        while let Some(left) = bytes.get(at..).filter(|left| !left.is_empty()) {
            if self.rest > 0 {
                let piece = left.get(..self.rest).unwrap_or(left);
                self.rest -= piece.len();
                if self.wanted {
                    sink.payload(piece, self.rest == 0).map_err(|excess| Stopped { after: at, excess })?;
                }
                at += piece.len();
                continue;
            }
            let begin = at;
            let raw = match left.first_chunk::<HEAD_BYTES>() {
                Some(whole) if self.have == 0 => {
                    at += HEAD_BYTES;
                    *whole
                }
                _ => {
                    let taken = left.len().min(HEAD_BYTES - self.have);
                    self.part[self.have..self.have + taken].copy_from_slice(&left[..taken]);
                    self.have += taken;
                    at += taken;
                    if self.have < HEAD_BYTES {
                        break;
                    }
                    self.have = 0;
                    self.part
                }
            };
            let head = Head::read(raw);
            self.wanted = sink.head(head).map_err(|excess| Stopped { after: begin, excess })?;
            self.rest = usize::try_from(head.length).unwrap_or(usize::MAX);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(Head, Vec<u8>)>);

    impl Sink for Seen {
        fn head(&mut self, head: Head) -> Result<bool, Excess> {
            self.0.push((head, Vec::new()));
            if head.kind == Kind::GoAway { Err(Excess::Glitches) } else { Ok(head.kind != Kind::Data) }
        }

        fn payload(&mut self, piece: &[u8], _last: bool) -> Result<(), Excess> {
            self.0.last_mut().unwrap().1.extend_from_slice(piece);
            Ok(())
        }
    }

    const STREAM: &[u8] = b"PRI\x00\x00\x04\x08\x00\x00\x00\x00\x03\x00\x00\x00\x07\
        \x00\x00\x02\x00\x01\x80\x00\x00\x01hi\x00\x00\x00\x04\x01\x00\x00\x00\x00";

    #[test]
    fn frames_are_the_same_in_any_pieces() {
        let head = |length, kind, flags, stream| Head { length, kind, flags, stream };
        let want = vec![
            (head(4, Kind::WindowUpdate, 0, 3), vec![0, 0, 0, 7]),
            (head(2, Kind::Data, END_STREAM, 1), vec![]),
            (head(0, Kind::Settings, ACK, 0), vec![]),
        ];
        for size in 1..=STREAM.len() {
            let (mut scanner, mut seen) = (Scanner::new(3), Seen::default());
            for piece in STREAM.chunks(size) {
                scanner.scan(piece, &mut seen).unwrap();
            }
            assert_eq!(seen.0, want, "{size}");
            assert!(scanner.between());
        }
    }

    #[test]
    fn what_is_too_much_is_not_passed() {
        let mut scanner = Scanner::new(0);
        let bytes = [&STREAM[3..16], b"\x00\x00\x00\x07\x00\x00\x00\x00\x00more"].concat();
        let stopped = scanner.scan(&bytes, &mut Seen::default()).unwrap_err();
        assert_eq!(stopped, Stopped { after: 13, excess: Excess::Glitches });
    }
}
