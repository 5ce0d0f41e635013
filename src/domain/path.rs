//! The one normalisation of a request path. What comes out is both judged and forwarded, so a
//! backend never sees another path than the one that was decided on.

use super::reason::Reason;
use std::borrow::Cow;

/// A path in its normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath<'a> {
    /// What is forwarded: original letter case, normal encoding.
    pub forward: Cow<'a, str>,
    /// What is compared: the same in ASCII lower case.
    pub folded: Cow<'a, str>,
}

impl<'a> NormalPath<'a> {
    /// Decodes what needs no encoding, upper-cases the rest, resolves dot segments, joins repeated
    /// slashes (RFC 3986, 6.2.2). Whatever a backend could read in two ways is refused.
    pub fn parse(raw: &'a str) -> Result<Self, Reason> {
        if !raw.starts_with('/') {
            return Err(Reason::TargetForm);
        }
        let decoded = decode(raw)?;
        let forward = if plain(&decoded) { decoded } else { Cow::Owned(resolve(&decoded)?) };
        let upper = forward.bytes().any(|byte| byte.is_ascii_uppercase());
        let folded = if upper { Cow::Owned(forward.to_ascii_lowercase()) } else { forward.clone() };
        Ok(Self { forward, folded })
    }
}

/// Nothing to resolve: no empty segment, and none that begins with a dot.
fn plain(path: &str) -> bool {
    !path.contains("//") && !path.contains("/.")
}

fn resolve(path: &str) -> Result<String, Reason> {
    let mut kept: Vec<&str> = Vec::new();
    let mut open_end = false;
    for segment in path.split('/') {
        open_end = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(Reason::PathEscapes)?;
            }
            name => kept.push(name),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if open_end || kept.is_empty() {
        out.push('/');
    }
    Ok(out)
}

fn decode(raw: &str) -> Result<Cow<'_, str>, Reason> {
    let bytes = raw.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b';' | b'\\' | 0..=0x20 | 0x7f..)) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut octets = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let octet = hex_pair(bytes, at + 1).ok_or(Reason::PathAmbiguous)?;
                push_encoded(octet, bytes, at + 3, &mut out)?;
                octets.push(octet);
                at += 3;
            }
            b';' | b'\\' | 0..=0x20 | 0x7f.. => return Err(Reason::PathAmbiguous),
            _ => {
                out.push(char::from(byte));
                octets.push(byte);
                at += 1;
            }
        }
    }
    // overlong forms and stray octets mean different characters to different readers
    std::str::from_utf8(&octets).map_err(|_| Reason::PathAmbiguous)?;
    Ok(Cow::Owned(out))
}

fn push_encoded(octet: u8, bytes: &[u8], next: usize, out: &mut String) -> Result<(), Reason> {
    match octet {
        b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(Reason::PathAmbiguous),
        b'%' if twice(bytes, next) => return Err(Reason::PathAmbiguous),
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(octet)),
        other => {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(DIGITS[usize::from(other >> 4)]));
            out.push(char::from(DIGITS[usize::from(other & 15)]));
        }
    }
    Ok(())
}

/// Whether an encoded percent sign is followed by two digits: decoded once more, it would become
/// another character.
fn twice(bytes: &[u8], next: usize) -> bool {
    hex_pair(bytes, next).is_some()
}

fn hex_pair(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |index| bytes.get(index).and_then(|byte: &u8| char::from(*byte).to_digit(16));
    u8::try_from(digit(at)? * 16 + digit(at + 1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(raw: &str) -> Result<String, Reason> {
        NormalPath::parse(raw).map(|path| path.forward.into_owned())
    }

    #[test]
    fn equivalent_paths_become_one() {
        for (raw, want) in [
            ("/http/orders", "/http/orders"),
            ("/http/%6frders", "/http/orders"),
            ("/http/./orders", "/http/orders"),
            ("/http/x/../orders", "/http/orders"),
            ("/http/x/%2e%2E/orders", "/http/orders"),
            ("/http//orders/", "/http/orders/"),
            ("/http/orders/.", "/http/orders/"),
            ("/http/orders/..", "/http/"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%25zz", "/a%25zz"),
            ("/.well-known/x", "/.well-known/x"),
            ("/", "/"),
        ] {
            assert_eq!(normal(raw).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for raw in [
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00b",
            "/a%0ab",
            "/a;v=1/b",
            "/a/..;/b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%c0%ae%c0%ae/b",
            "/%e0%80%af",
            "/a%252e%252e/b",
            "/a%252fb",
            "/a%ff",
            "/a%7f",
            "/a b",
        ] {
            assert_eq!(normal(raw), Err(Reason::PathAmbiguous), "{raw}");
        }
    }

    #[test]
    fn a_path_that_climbs_above_the_root_is_refused() {
        for raw in ["/..", "/../x", "/a/../../b", "/%2e%2e/x"] {
            assert_eq!(normal(raw), Err(Reason::PathEscapes), "{raw}");
        }
    }

    #[test]
    fn only_a_path_is_taken() {
        assert_eq!(normal("*"), Err(Reason::TargetForm));
        assert_eq!(normal(""), Err(Reason::TargetForm));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(raw in "/([a-z.%/0-9A-F;]|%2e|%2f|\\.\\.){0,24}") {
            if let Ok(once) = normal(&raw) {
                prop_assert_eq!(normal(&once), Ok(once.clone()));
            }
        }

        #[test]
        fn a_normal_path_has_no_dot_segments_and_no_double_slash(raw in "/([a-z./]|%2e|//){0,24}") {
            if let Ok(path) = normal(&raw) {
                prop_assert!(path.starts_with('/') && !path.contains("//"));
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn no_input_panics(raw in "\\PC{0,64}") {
            let _ = normal(&raw);
        }
    }
}
