//! A header block as it comes: its bytes, its frames, its fields, without decoding it.
//!
//! Walks the representations of HPACK (RFC 7541, 6) and skips their strings, so that a block with too many fields is
//! known before anyone takes memory for them: an indexed field costs its sender one byte and its reader a hundred.
//! Never here: names and values, but for one thing: whether a field that must not be there is a pseudo-header. Used by
//! `meter`.

use super::{
    Excess,
    frame::{END_HEADERS, Head, PADDED, PRIORITY},
};
use crate::limits::{H2_BLOCK_BYTES_MAX, H2_CONTINUATIONS_MAX, H2_FIELDS_MAX, HEADERS_MAX};

/// More fields than this, pseudo-headers counted, are answered with 431; a peer that sends many such blocks means it.
#[expect(clippy::cast_possible_truncation, reason = "a constant, and small")]
const MANY: u32 = HEADERS_MAX as u32 + 5;
/// Bytes of a dependency in HEADERS (RFC 9113, 6.2).
const DEPENDENCY_BYTES: u32 = 5;
/// Entries 1 to 14 of the static table are pseudo-headers (RFC 7541, appendix A).
const PSEUDO_MAX: u32 = 14;
/// Longest number that is read; a longer one belongs to no block that could pass.
const NUMBER_MAX: u32 = 1 << 24;

/// A header block that has begun.
#[derive(Debug)]
pub(super) struct Block {
    /// The number of its first frame.
    pub(super) frame: u64,
    fields: Fields,
    bytes: u32,
    continuations: u32,
    trailers: bool,
    /// The length of the padding is to come.
    padded: bool,
    /// Bytes before the fields of this frame that are to come.
    lead: u32,
    /// Bytes of fields in this frame that are to come.
    left: u32,
}

impl Block {
    /// Begins with HEADERS; none: there is nothing to find out.
    pub(super) fn begin(head: Head, frame: u64, trailers: bool) -> Result<Option<Self>, Excess> {
        // A field takes a byte at least: most blocks are too short to have too many.
        if head.has(END_HEADERS) && head.length <= MANY && !trailers {
            return Ok(None);
        }
        let padded = head.has(PADDED);
        let lead = if head.has(PRIORITY) { DEPENDENCY_BYTES } else { 0 };
        let left = head.length.saturating_sub(u32::from(padded)).saturating_sub(lead);
        let (fields, bytes, continuations) = (Fields::new(), 0, 0);
        Self { frame, fields, bytes, continuations, trailers, padded, lead, left }.with(head)
    }

    /// Goes on with CONTINUATION; none: it ends with it.
    pub(super) fn go_on(mut self, head: Head) -> Result<Option<Self>, Excess> {
        self.continuations += 1;
        if self.continuations > H2_CONTINUATIONS_MAX {
            return Err(Excess::Continuations);
        }
        (self.padded, self.lead, self.left) = (false, 0, head.length);
        self.with(head)
    }

    fn with(mut self, head: Head) -> Result<Option<Self>, Excess> {
        self.bytes = self.bytes.saturating_add(head.length);
        if self.bytes > H2_BLOCK_BYTES_MAX {
            return Err(Excess::BlockBytes);
        }
        Ok((head.length > 0 || !head.has(END_HEADERS)).then_some(self))
    }

    /// Reads on; says, once a block, that it has too many fields to be served.
    pub(super) fn read(&mut self, mut piece: &[u8]) -> Result<bool, Excess> {
        let before = self.fields.count();
        if self.padded
            && let Some((&pad, rest)) = piece.split_first()
        {
            self.padded = false;
            self.left = self.left.saturating_sub(u32::from(pad));
            piece = rest;
        }
        let _lead = take(&mut piece, &mut self.lead);
        // What is left of the piece is padding.
        self.fields.read(take(&mut piece, &mut self.left));
        if self.fields.count() > H2_FIELDS_MAX {
            return Err(Excess::Fields);
        }
        if self.trailers && self.fields.has_pseudo() {
            return Err(Excess::Trailers);
        }
        Ok(before <= MANY && self.fields.count() > MANY)
    }
}

/// Takes so many bytes from the front, as far as they are there.
fn take<'b>(piece: &mut &'b [u8], count: &mut u32) -> &'b [u8] {
    let have = usize::try_from(*count).unwrap_or(usize::MAX).min(piece.len());
    let (taken, rest) = piece.split_at(have);
    *piece = rest;
    *count -= u32::try_from(have).unwrap_or(0);
    taken
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The first byte of a representation.
    Field,
    /// More bytes of a number, at this shift.
    Number { so_far: u32, shift: u32, then: Then },
    /// The first byte of a string's length.
    Length(Part),
    /// So many bytes of a string; whether the first has come, and is Huffman's.
    Text { left: u32, part: Part, first: bool, huffman: bool },
}

#[derive(Debug, Clone, Copy)]
enum Then {
    /// An indexed field.
    Indexed,
    /// A field whose name has an index.
    Named,
    /// A change of the table's size.
    Resize,
    /// A string.
    Text { part: Part, huffman: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Name,
    Value,
}

/// The fields of one block.
#[derive(Debug)]
struct Fields {
    step: Step,
    count: u32,
    pseudo: bool,
}

impl Fields {
    fn new() -> Self {
        Self { step: Step::Field, count: 0, pseudo: false }
    }

    /// Representations so far.
    fn count(&self) -> u32 {
        self.count
    }

    /// Whether one of them is a pseudo-header, as far as it can be seen without a table.
    fn has_pseudo(&self) -> bool {
        self.pseudo
    }

    /// Reads on.
    fn read(&mut self, mut bytes: &[u8]) {
        loop {
            if matches!(self.step, Step::Field) {
                bytes = self.whole(bytes);
            }
            let Some((&byte, after)) = bytes.split_first() else { return };
            match self.step {
                Step::Text { mut left, part, first, huffman } => {
                    if first && part == Part::Name {
                        // ':' as it is, or as Huffman's seven bits.
                        self.pseudo |= if huffman { byte >> 1 == 0x5c } else { byte == b':' };
                    }
                    let _text = take(&mut bytes, &mut left);
                    self.step = match left {
                        0 => after_text(part),
                        _ => Step::Text { left, part, first: false, huffman },
                    };
                    continue;
                }
                Step::Field => self.field(byte),
                Step::Length(part) => {
                    let huffman = byte & 0x80 != 0;
                    self.number(byte & 0x7f, 0x7f, Then::Text { part, huffman });
                }
                Step::Number { so_far, shift, then } => {
                    let more = u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(NUMBER_MAX);
                    let value = so_far.saturating_add(more).min(NUMBER_MAX);
                    if byte & 0x80 == 0 {
                        self.then(value, then);
                    } else {
                        self.step = Step::Number { so_far: value, shift: (shift + 7).min(28), then };
                    }
                }
            }
            bytes = after;
        }
    }

    /// Reads fields that are there from end to end and whose numbers are small: nearly all. Gives what is left.
    fn whole<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while let Some((&first, rest)) = bytes.split_first() {
            let (index, most) = match first {
                0x80.. => (first & 0x7f, 0x7f),
                0x40.. => (first & 0x3f, 0x3f),
                0x20.. => return bytes,
                _ => (first & 0x0f, 0x0f),
            };
            if index == most {
                return bytes;
            }
            let mut left = Some(rest);
            if first < 0x80 && index == 0 {
                self.pseudo |= matches!(rest, [1..=0x7e, b':', ..] | [0x81..=0xfe, 0xb8 | 0xb9, ..]);
                left = left.and_then(after_string);
            }
            if first < 0x80 {
                left = left.and_then(after_string);
            }
            let Some(left) = left else { return bytes };
            self.count += 1;
            self.pseudo |= (1..=PSEUDO_MAX).contains(&u32::from(index));
            bytes = left;
        }
        bytes
    }

    fn field(&mut self, byte: u8) {
        self.count += 1;
        match byte {
            0x80.. => self.number(byte & 0x7f, 0x7f, Then::Indexed),
            0x40.. => self.number(byte & 0x3f, 0x3f, Then::Named),
            0x20.. => self.number(byte & 0x1f, 0x1f, Then::Resize),
            _ => self.number(byte & 0x0f, 0x0f, Then::Named),
        }
    }

    fn number(&mut self, value: u8, most: u8, then: Then) {
        if value < most {
            self.then(u32::from(value), then);
        } else {
            self.step = Step::Number { so_far: u32::from(most), shift: 0, then };
        }
    }

    fn then(&mut self, value: u32, then: Then) {
        self.step = match then {
            Then::Resize => Step::Field,
            Then::Indexed => {
                self.pseudo |= (1..=PSEUDO_MAX).contains(&value);
                Step::Field
            }
            Then::Named if value == 0 => Step::Length(Part::Name),
            Then::Named => {
                self.pseudo |= value <= PSEUDO_MAX;
                Step::Length(Part::Value)
            }
            Then::Text { part, .. } if value == 0 => after_text(part),
            Then::Text { part, huffman } => Step::Text { left: value, part, first: true, huffman },
        };
    }
}

/// What follows a string whose length is small and which is there from end to end.
fn after_string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first()?;
    let length = length & 0x7f;
    if length == 0x7f { None } else { rest.get(usize::from(length)..) }
}

fn after_text(part: Part) -> Step {
    match part {
        Part::Name => Step::Length(Part::Value),
        Part::Value => Step::Field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(block: &[u8], count: u32, pseudo: bool) {
        for size in 1..=block.len() {
            let mut fields = Fields::new();
            block.chunks(size).for_each(|piece| fields.read(piece));
            assert_eq!((fields.count(), fields.has_pseudo()), (count, pseudo), "{block:?} by {size}");
        }
    }

    // The examples of RFC 7541, appendix C.
    #[test]
    fn one_literal_field() {
        check(b"\x40\x0acustom-key\x0dcustom-header", 1, false);
        check(b"\x04\x0c/sample/path", 1, true);
        check(b"\x10\x08password\x06secret", 1, false);
    }

    #[test]
    fn requests_with_and_without_huffman() {
        check(b"\x82\x86\x84\x41\x0fwww.example.com", 4, true);
        check(b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", 4, true);
        check(
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
            5,
            true,
        );
    }

    #[test]
    fn long_numbers_and_empty_strings() {
        let long = [b"\x00\x01a\x7f\x81\x01".as_slice(), &[b'x'; 256], b"\xbe\xff\x80\x01\x3f\xe1\x1f"].concat();
        check(&long, 4, false);
        check(b"\x00\x00\x00\x00\x01a\x00", 2, false);
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x82", 2, true);
    }

    #[test]
    fn pseudo_headers_are_seen_by_name() {
        check(b"\x00\x05:path\x01/", 1, true);
        check(b"\x00\x84\xb9\x58\xd3\x3f\x01/", 1, true);
        check(b"\x0f\x00\x01x", 1, false);
    }
}
