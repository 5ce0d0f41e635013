//! The frames of an HTTP/2 client, looked at beside the library, which lets some through that a
//! server is to refuse. No more is read of them than that takes.

use std::mem;

/// Octets of the preface behind its first line, by which HTTP/2 is known.
const PREFACE: usize = 8;
const HEAD: usize = 9;
/// Octets of a payload that are looked at: what pads and orders it, and how its first field begins.
const LOOKED_AT: usize = 32;

const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const CONTINUATION: u8 = 0x9;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Pseudo-header fields are the first ones of HPACK's table (RFC 7541, appendix A).
const PSEUDO: std::ops::RangeInclusive<usize> = 1..=14;

/// What ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the first frame is not SETTINGS (RFC 9113, 3.4)")]
    NoSettings,
    /// The library refuses the request and does not read its fields, which later ones may refer to.
    #[error("a request depends on itself (RFC 7540, 5.3.1)")]
    SelfDependent,
    /// Or with so much else that it cannot be told.
    #[error("trailers begin with a pseudo-header field (RFC 9113, 8.1)")]
    PseudoTrailer,
}

/// How far a connection has been looked at, from the end of its first line on.
pub struct Frames {
    /// Octets to come that say nothing.
    skip: usize,
    /// The frame that has begun, as far as it is looked at.
    begun: Vec<u8>,
    /// Whether the first frame has come.
    settled: bool,
    /// The highest stream that a client has opened.
    latest: u32,
    /// How trailers begin, while it is not clear what their first field is.
    trailers: Option<Vec<u8>>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { skip: PREFACE, begun: Vec::new(), settled: false, latest: 0, trailers: None }
    }
}

impl Frames {
    /// Looks at what comes next.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let taken = (self.wanted() - self.begun.len()).min(bytes.len());
            self.begun.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.begun.len() == self.wanted() {
                let begun = mem::take(&mut self.begun);
                let (head, payload) = begun.split_at(HEAD);
                self.judge(head, payload)?;
                self.skip = length(head) - payload.len();
                self.begun = begun;
                self.begun.clear();
            }
        }
    }

    /// The highest stream that was opened.
    pub fn latest(&self) -> u32 {
        self.latest
    }

    /// How much of the frame that has begun is looked at, as far as that is known.
    fn wanted(&self) -> usize {
        let Some(head) = self.begun.get(..HEAD) else { return HEAD };
        match head[3] {
            HEADERS => HEAD + length(head).min(LOOKED_AT),
            CONTINUATION if self.trailers.is_some() => HEAD + length(head).min(LOOKED_AT),
            _ => HEAD,
        }
    }

    fn judge(&mut self, head: &[u8], payload: &[u8]) -> Result<(), Fault> {
        let (kind, flags, stream) = (head[3], head[4], number(&head[5..]));
        if !mem::replace(&mut self.settled, true) && (kind != SETTINGS || flags & ACK != 0) {
            return Err(Fault::NoSettings);
        }
        match kind {
            HEADERS => {
                // what is too short to be one is the library's to refuse
                let Some((block, cut)) = block(flags, stream, length(head), payload)? else { return Ok(()) };
                if stream > self.latest {
                    self.latest = stream;
                    return Ok(());
                }
                self.trailers = Some(Vec::new());
                self.look(block, cut, flags)
            }
            CONTINUATION => self.look(payload, payload.len() < length(head), flags),
            _ => Ok(()),
        }
    }

    /// Looks at how trailers begin, if it is trailers that come. Of a block that was `cut` there is more
    /// than is looked at.
    fn look(&mut self, block: &[u8], cut: bool, flags: u8) -> Result<(), Fault> {
        let Some(mut begun) = self.trailers.take() else { return Ok(()) };
        begun.extend_from_slice(block);
        match first_is_pseudo(&begun) {
            Some(true) => return Err(Fault::PseudoTrailer),
            None if cut || begun.len() > LOOKED_AT => return Err(Fault::PseudoTrailer),
            None if flags & END_HEADERS == 0 => self.trailers = Some(begun),
            _ => {}
        }
        Ok(())
    }
}

/// The fields that HEADERS carry, as far as they are looked at, and whether there are more (RFC 9113, 6.2).
fn block(flags: u8, stream: u32, length: usize, payload: &[u8]) -> Result<Option<(&[u8], bool)>, Fault> {
    let mut rest = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let Some((pad, more)) = rest.split_first() else { return Ok(None) };
        (padding, rest) = (usize::from(*pad), more);
    }
    if flags & PRIORITY != 0 {
        let Some((dependency, more)) = rest.split_at_checked(5) else { return Ok(None) };
        if number(dependency) == stream {
            return Err(Fault::SelfDependent);
        }
        rest = more;
    }
    let before = payload.len() - rest.len();
    let fields = length.checked_sub(before + padding);
    Ok(fields.map(|fields| (&rest[..fields.min(rest.len())], fields > rest.len())))
}

/// Whether a block's first field is a pseudo-header field, if that can be told from its beginning; a
/// name that is in the table of what the client has sent before cannot (RFC 7541, 6).
fn first_is_pseudo(mut block: &[u8]) -> Option<bool> {
    loop {
        let first = *block.first()?;
        let (bits, update) = match first {
            0x80.. => (7, false),
            0x40.. => (6, false),
            0x20.. => (5, true),
            _ => (4, false),
        };
        let (index, rest) = integer(block, bits)?;
        if update {
            block = rest;
        } else if index == 0 && first < 0x80 {
            let huffman = *rest.first()? & 0x80 != 0;
            let (length, name) = integer(rest, 7)?;
            let begin = *name.first()?;
            // a colon, or its code of seven bits
            return Some(length > 0 && if huffman { begin >> 1 == 0b101_1100 } else { begin == b':' });
        } else {
            return Some(PSEUDO.contains(&index));
        }
    }
}

/// An integer whose first octet has so many bits of it, and what follows (RFC 7541, 5.1).
fn integer(bytes: &[u8], bits: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let most = (1 << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Some((value, rest));
    }
    for shift in (0..28).step_by(7) {
        let (next, more) = rest.split_first()?;
        rest = more;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            break;
        }
    }
    Some((value, rest))
}

fn length(head: &[u8]) -> usize {
    head[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

/// Of 31 bits: the first one is reserved.
fn number(bytes: &[u8]) -> u32 {
    bytes[..4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte)) & (u32::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REQUEST: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];
    const END_STREAM: u8 = 0x1;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn begun(frames: &[Vec<u8>]) -> Vec<u8> {
        let settings = frame(SETTINGS, 0, 0, &[]);
        [b"\r\nSM\r\n\r\n", &settings[..], &frames.concat()].concat()
    }

    fn judged(frames: &[Vec<u8>]) -> Result<(), Fault> {
        Frames::default().read(&begun(frames))
    }

    /// A request with content, and what follows.
    fn with_trailers(trailers: &[Vec<u8>]) -> Vec<Vec<u8>> {
        [&[frame(HEADERS, END_HEADERS, 1, REQUEST), frame(0, 0, 1, b"content")], trailers].concat()
    }

    fn trailers(block: &[u8]) -> Result<(), Fault> {
        judged(&with_trailers(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, block)]))
    }

    #[test]
    fn the_first_frame_is_settings_and_no_acknowledgement() {
        let with = |frame: &[u8]| Frames::default().read(&[&b"\r\nSM\r\n\r\n"[..], frame].concat());
        assert_eq!(with(&frame(SETTINGS, 0, 0, &[0; 6])), Ok(()));
        assert_eq!(with(&frame(SETTINGS, ACK, 0, &[])), Err(Fault::NoSettings));
        assert_eq!(with(&frame(HEADERS, END_HEADERS, 1, REQUEST)), Err(Fault::NoSettings));
    }

    #[test]
    fn a_request_depends_on_another_one_or_none() {
        for (dependency, want) in [(0, Ok(())), (1, Ok(())), (3, Err(Fault::SelfDependent))] {
            for exclusive in [0, 1u32 << 31] {
                let ordered = [&(dependency | exclusive).to_be_bytes()[..], &[16], REQUEST].concat();
                let padded = [&[2][..], &ordered, &[0, 0]].concat();
                assert_eq!(judged(&[frame(HEADERS, END_HEADERS | PRIORITY, 3, &ordered)]), want);
                assert_eq!(judged(&[frame(HEADERS, END_HEADERS | PRIORITY | PADDED, 3, &padded)]), want);
            }
        }
    }

    #[test]
    fn trailers_begin_with_no_pseudo_header_field() {
        let pseudo = Err(Fault::PseudoTrailer);
        for (block, want) in [
            (&[0x82][..], pseudo),                              // :method: GET
            (&[0x8e], pseudo),                                  // :status: 500
            (&[0x42, 3, b'2', b'0', b'0'], pseudo),             // :method: 200, to be remembered
            (&[0x01, 1, b'a'], pseudo),                         // :authority: a
            (&[0x20, 0x3f, 0xe1, 0x1f, 0x82], pseudo),          // after changes of the table's size
            (&[0x00, 2, b':', b'x', 1, b'y'], pseudo),          // a name of its own
            (&[0x40, 0x83, 0xb9, 0x49, 0x53, 1, b'y'], pseudo), // the same, compressed
            (&[0x00, 6, b'x', b'-', b'n', b'a', b'm', b'e'], Ok(())),
            (&[0x40, 0x85, 0xf2, 0xb2, 0x4a, 0x87, 0xff], Ok(())),
            (&[0x20; LOOKED_AT + 1], pseudo), // what comes behind so many cannot be told
            (&[0xbe], Ok(())),
            (&[0x0f, 0x00, 1, b'a'], Ok(())),
            (&[], Ok(())),
        ] {
            assert_eq!(trailers(block), want, "{block:02x?}");
        }
    }

    #[test]
    fn trailers_that_come_in_pieces_are_put_together() {
        let pieces = |pieces: &[&[u8]]| {
            let rest = pieces[1..].iter().map(|piece| frame(CONTINUATION, 0, 1, piece));
            let first = frame(HEADERS, END_STREAM, 1, pieces[0]);
            judged(&with_trailers(&[first].into_iter().chain(rest).collect::<Vec<_>>()))
        };
        assert_eq!(pieces(&[&[], &[0x00], &[], &[1], b":"]), Err(Fault::PseudoTrailer));
        assert_eq!(pieces(&[&[], &[0x00], &[1], b"x", &[0x82]]), Ok(()));
        let only_padding = frame(HEADERS, END_STREAM | PADDED, 1, &[3, 0, 0, 0]);
        let then = frame(CONTINUATION, END_HEADERS, 1, &[0x82]);
        assert_eq!(judged(&with_trailers(&[only_padding, then])), Err(Fault::PseudoTrailer));
    }

    #[test]
    fn the_fields_of_another_request_are_no_trailers() {
        let next = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST);
        assert_eq!(judged(&[next(1), next(3), next(9)]), Ok(()));
        let more = frame(CONTINUATION, END_HEADERS, 1, &[0x84]);
        assert_eq!(judged(&[frame(HEADERS, END_STREAM, 1, &[0x82, 0x86]), more]), Ok(()));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_octets_come(
            payloads in prop::collection::vec((0u8..12, any::<u8>(), 0u32..6, prop::collection::vec(any::<u8>(), 0..48)), 0..6),
            size in 1usize..40,
        ) {
            let all: Vec<_> = payloads.iter().map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect();
            let mut frames = Frames::default();
            let by_piece = begun(&all).chunks(size).try_for_each(|piece| frames.read(piece));
            prop_assert_eq!(by_piece, judged(&all));
        }

        #[test]
        fn no_octets_make_it_panic(bytes: Vec<u8>) {
            let _ = Frames { skip: 0, ..Frames::default() }.read(&bytes);
            let _ = first_is_pseudo(&bytes);
        }
    }
}
