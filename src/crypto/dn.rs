//! Distinguished names: rendered for people (RFC 4514), compared as RFC 5280, 7.1 says, so that
//! string types, letter case and blanks do not matter and the order of names does.

use super::digest::{Digest, hex, sha256};
use std::fmt::Write;
use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::prelude::X509Name;

/// A name, ready to be shown and to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dn {
    /// RFC 4514: the most specific part first.
    pub text: String,
    /// Equal for names that RFC 5280 calls equal.
    pub identity: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDn {
    #[error("the name is empty")]
    Empty,
    #[error("`{0}` has no `=`; write the name as CN=sender,O=Example,C=DE")]
    NoEquals(String),
    #[error("`{0}` is no attribute known here; use its dotted number, such as 2.5.4.3")]
    Attribute(String),
    #[error("the value of `{0}` is not well escaped (RFC 4514, 2.4)")]
    Value(String),
}

/// One attribute: its type as a dotted number, its value as text or, for other types, as DER.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attribute {
    oid: String,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    Der(Vec<u8>),
}

/// From the most general to the most specific, as encoded; several attributes may share a place.
type Parts = Vec<Vec<Attribute>>;

impl Dn {
    /// None if a text in it is not of its own string type.
    pub fn of(name: &X509Name<'_>) -> Option<Self> {
        let attribute = |attribute: &x509_parser::prelude::AttributeTypeAndValue<'_>| {
            let value = value(attribute.attr_value())?;
            Some(Attribute { oid: attribute.attr_type().to_id_string(), value })
        };
        let parts: Option<Parts> = name.iter_rdn().map(|rdn| rdn.iter().map(attribute).collect()).collect();
        let parts = parts?;
        Some(Self { text: render(&parts), identity: identity(&parts) })
    }

    /// Reads RFC 4514 text, and what RFC 2253 and its readers allow besides: blanks around
    /// separators, `;` for `,`, values in quotation marks.
    pub fn parse(text: &str) -> Result<Self, BadDn> {
        if text.trim().is_empty() {
            return Err(BadDn::Empty);
        }
        let mut parts = Parts::new();
        for part in split(text, &[',', ';']) {
            let attributes = split(part, &['+']).into_iter().map(attribute);
            parts.push(attributes.collect::<Result<_, _>>()?);
        }
        parts.reverse();
        Ok(Self { text: render(&parts), identity: identity(&parts) })
    }
}

/// Text of the string types (RFC 5280, 4.1.2.4), DER of everything else.
fn value(any: &Any<'_>) -> Option<Value> {
    let bytes = any.as_bytes();
    let text = match any.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::NumericString | Tag::Ia5String | Tag::VisibleString => {
            String::from_utf8(bytes.to_vec()).ok()?
        }
        // practice is Latin-1, or UTF-8 under a wrong label
        Tag::T61String => {
            String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| bytes.iter().copied().map(char::from).collect())
        }
        Tag::BmpString => {
            let (units, rest) = bytes.as_chunks::<2>();
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            rest.is_empty().then(|| char::decode_utf16(units).collect::<Result<_, _>>().ok())??
        }
        Tag::UniversalString => {
            let (units, rest) = bytes.as_chunks::<4>();
            let units = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            rest.is_empty().then(|| units.collect::<Option<_>>())??
        }
        tag => {
            let mut der = tag.0.to_be_bytes().to_vec();
            der.extend_from_slice(bytes);
            return Some(Value::Der(der));
        }
    };
    Some(Value::Text(text))
}

/// One digest over all parts in order, each with its length before it.
fn identity(parts: &Parts) -> Digest {
    let mut bytes = Vec::new();
    let mut put = |item: &[u8]| {
        bytes.extend_from_slice(&(item.len() as u64).to_be_bytes());
        bytes.extend_from_slice(item);
    };
    for part in parts {
        let mut attributes: Vec<_> = part.iter().map(prepared).collect();
        attributes.sort();
        put(&attributes.len().to_be_bytes());
        attributes.iter().flat_map(|(oid, value)| [oid.as_bytes(), value]).for_each(&mut put);
    }
    sha256(&bytes)
}

/// Prepared for comparison (RFC 4518): folded, normalised, blanks joined. What cannot be prepared
/// is compared as it stands.
fn prepared(attribute: &Attribute) -> (&str, Vec<u8>) {
    let value = match &attribute.value {
        Value::Der(der) => [b"#", der.as_slice()].concat(),
        Value::Text(text) => {
            let folded = stringprep::x520prep(text, true);
            let folded = folded.as_deref().unwrap_or(text);
            let words: Vec<_> = folded.split(' ').filter(|word| !word.is_empty()).collect();
            format!("t{}", words.join(" ")).into_bytes()
        }
    };
    (&attribute.oid, value)
}

/// RFC 4514, 2: the most specific part first, special characters escaped.
fn render(parts: &Parts) -> String {
    let mut out = String::new();
    for (index, part) in parts.iter().rev().enumerate() {
        for (at, attribute) in part.iter().enumerate() {
            if index > 0 || at > 0 {
                out.push(if at > 0 { '+' } else { ',' });
            }
            let label = SHORT.iter().find(|(id, _)| *id == attribute.oid);
            let _ = write!(out, "{}=", label.map_or(attribute.oid.as_str(), |(_, short)| short));
            match &attribute.value {
                Value::Text(text) => escape(text, &mut out),
                Value::Der(der) => {
                    let _ = write!(out, "#{}", hex(der));
                }
            }
        }
    }
    out
}

const SHORT: [(&str, &str); 15] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "T"),
    ("2.5.4.42", "GIVENNAME"),
    ("2.5.4.97", "ORGANIZATIONIDENTIFIER"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
];

/// Other spellings of the same attributes, as other tools print them.
const SPELLINGS: [(&str, &str); 7] = [
    ("S", "ST"),
    ("E", "EMAILADDRESS"),
    ("MAIL", "EMAILADDRESS"),
    ("USERID", "UID"),
    ("SURNAME", "SN"),
    ("TITLE", "T"),
    ("GN", "GIVENNAME"),
];

fn escape(value: &str, out: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            '#' if at == 0 => out.extend(['\\', c]),
            ' ' if at == 0 || at == last => out.extend(['\\', c]),
            c if c.is_control() => {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(out, "\\{byte:02X}");
                }
            }
            c => out.push(c),
        }
    }
}

/// Splits at separators that are neither escaped nor quoted.
fn split<'a>(text: &'a str, separators: &[char]) -> Vec<&'a str> {
    let (mut out, mut start, mut escaped, mut quoted) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if !quoted && separators.contains(&c) => {
                out.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn attribute(text: &str) -> Result<Attribute, BadDn> {
    let (kind, rest) = text.split_once('=').ok_or_else(|| BadDn::NoEquals(text.trim().to_owned()))?;
    let kind = kind.trim();
    let upper = kind.to_ascii_uppercase();
    let label = SPELLINGS.iter().find(|(other, _)| *other == upper).map_or(upper.as_str(), |(_, label)| label);
    let known = SHORT.iter().find(|(_, short)| *short == label).map(|(oid, _)| (*oid).to_owned());
    let dotted = label.strip_prefix("OID.").unwrap_or(label);
    let numeric =
        !dotted.is_empty() && dotted.split('.').all(|arc| !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit()));
    let oid = known.or_else(|| numeric.then(|| dotted.to_owned())).ok_or_else(|| BadDn::Attribute(kind.to_owned()))?;
    let value = unescape(rest).ok_or_else(|| BadDn::Value(kind.to_owned()))?;
    Ok(Attribute { oid, value })
}

fn unescape(text: &str) -> Option<Value> {
    let text = text.trim_start_matches(' ');
    if let Some(digits) = text.strip_prefix('#') {
        let der = bytes_of_hex(digits.trim_end_matches(' '))?;
        let (rest, any) = Any::from_der(&der).ok()?;
        return rest.is_empty().then(|| value(&any))?;
    }
    if let Some(quoted) = text.strip_prefix('"') {
        let inner = quoted.trim_end_matches(' ').strip_suffix('"')?;
        return plain(inner).map(Value::Text);
    }
    // a final blank that is escaped belongs to the value
    let trimmed = text.trim_end_matches(' ');
    let ends = trimmed.bytes().rev().take_while(|byte| *byte == b'\\').count();
    let whole = if ends % 2 == 1 && trimmed.len() < text.len() { &text[..=trimmed.len()] } else { trimmed };
    plain(whole).map(Value::Text)
}

fn plain(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let first = rest.next()?;
        match char::from(first).to_digit(16) {
            Some(high) => {
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            None if b" \"#+,;<=>\\".contains(&first) => bytes.push(first),
            None => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(oid: &str, value: &str) -> Attribute {
        Attribute { oid: oid.into(), value: Value::Text(value.into()) }
    }

    fn same(a: &str, b: &str) -> bool {
        Dn::parse(a).expect("a name").identity == Dn::parse(b).expect("a name").identity
    }

    #[test]
    fn names_that_rfc_5280_calls_equal_are_equal() {
        for (a, b) in [
            ("CN=one,O=Example", "cn=ONE, o=example"),
            ("CN=a  b", "CN= a b "),
            ("CN=a+UID=b", "UID=b+CN=a"),
            ("CN=Stra\\C3\\9Fe", "CN=STRASSE"),
            ("CN=one;O=x", "2.5.4.3=one,OID.2.5.4.10=\"x\""),
            ("E=a@b.example", "emailAddress=A@B.EXAMPLE"),
            ("CN=#0C036F6E65", "CN=one"),
            ("CN=#1306 6F6E65".replace(' ', "").replace("1306", "1303").as_str(), "CN=one"),
        ] {
            assert!(same(a, b), "{a} and {b}");
        }
    }

    #[test]
    fn names_that_differ_in_order_or_content_are_not() {
        for (a, b) in [
            ("CN=one,O=x", "O=x,CN=one"),
            ("CN=one", "CN=one,O=x"),
            ("CN=a+UID=b", "CN=a,UID=b"),
            ("CN=one", "OU=one"),
            ("CN=a\\,b", "CN=a,CN=b"),
            ("CN=ab", "CN=a b"),
        ] {
            assert!(!same(a, b), "{a} and {b}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_rule() {
        assert_eq!(Dn::parse(" "), Err(BadDn::Empty));
        assert_eq!(Dn::parse("one"), Err(BadDn::NoEquals("one".into())));
        assert_eq!(Dn::parse("XX=one"), Err(BadDn::Attribute("XX".into())));
        for bad in ["CN=a\\", "CN=a\\zz", "CN=\"a", "CN=#0", "CN=#0C05", "CN=\\FF"] {
            assert_eq!(Dn::parse(bad), Err(BadDn::Value("CN".into())), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back_the_same(values in proptest::collection::vec(proptest::collection::vec("\\PC{1,12}| [a-z]# ", 1..3), 1..4)) {
            let oids = ["2.5.4.3", "2.5.4.10", "1.2.3.4"];
            let parts: Parts = values
                .iter()
                .map(|part| part.iter().zip(oids).map(|(value, oid)| text(oid, value)).collect())
                .collect();
            let read = Dn::parse(&render(&parts)).expect("reads");
            prop_assert_eq!(read.identity, identity(&parts));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = Dn::parse(&text);
        }
    }
}
