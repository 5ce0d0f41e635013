//! Where outbound calls may go. The address that was resolved is the one that is judged and
//! connected to, so that a name cannot mean one host when it is saved and another when it is used.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
// addresses as values: the core library has no sockets
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// The URL of a server that is called, as it was given: its own query stays byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    text: String,
    url: Url,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("`{0}` is no URL")]
    NotAUrl(String),
    #[error("use https (http only for a network that outbound.allow_networks lists)")]
    Scheme,
    #[error("a URL with a user name or password in it is not used; give them as parameters")]
    UserInfo,
    #[error("a fragment (#) means nothing to a server; leave it out")]
    Fragment,
    #[error("it is longer than 2048 characters")]
    Long,
}

/// Why an address is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0} is an address of a cloud's metadata service, which is never called")]
    Metadata(IpAddr),
    #[error("{0} is no public address; list its network in outbound.allow_networks if it is meant")]
    Special(IpAddr),
    #[error("http is used only towards networks that outbound.allow_networks lists, and {0} is in none")]
    Plain(IpAddr),
}

impl Target {
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        if text.len() > 2_048 {
            return Err(BadTarget::Long);
        }
        // what is before an `@` may be a password
        let private = text.contains('@');
        let shown = || {
            if private { "..@..".to_owned() } else { text.chars().take(96).flat_map(char::escape_default).collect() }
        };
        let odd = text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\');
        let url = Url::parse(text).map_err(|_| BadTarget::NotAUrl(shown()))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(BadTarget::Scheme);
        }
        if odd || !url.has_host() {
            return Err(BadTarget::NotAUrl(shown()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadTarget::UserInfo);
        }
        match url.fragment() {
            Some(_) => Err(BadTarget::Fragment),
            None => Ok(Self { text: text.to_owned(), url }),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// As a name or address to connect to; numbers in any disguise are read as what they are.
    pub fn host(&self) -> Option<Host<&str>> {
        self.url.host()
    }

    /// What can be said of a target that somebody else connects to, such as a forward proxy: names
    /// are for that one to judge, its own host and network are not meant unless they are listed.
    pub fn judge_by_name(&self, allowed: &[IpNet]) -> Result<(), Refused> {
        let given = match self.host() {
            Some(Host::Ipv4(four)) => IpAddr::V4(four),
            Some(Host::Ipv6(six)) => IpAddr::V6(six),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                if name != "localhost" && !name.ends_with(".localhost") {
                    return Ok(());
                }
                Ipv4Addr::LOCALHOST.into()
            }
            None => return Ok(()),
        };
        let address = unmapped(given);
        let near = match address {
            IpAddr::V4(four) => four.is_loopback() || four.is_link_local() || four.is_unspecified(),
            IpAddr::V6(six) => six.is_loopback() || six.is_unicast_link_local() || six.is_unspecified(),
        };
        let listed = allowed.iter().any(|net| net.contains(&given.to_canonical()));
        match (metadata(address), near && !listed) {
            (true, _) => Err(Refused::Metadata(address)),
            (false, true) => Err(Refused::Special(address)),
            (false, false) => Ok(()),
        }
    }

    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// `host` or `host:port`, as the Host header has it.
    pub fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Path and query, with parameters of ours in place of those of the same names.
    pub fn path_with_query(&self, names: &[&str], ours: &str) -> String {
        let own = self.query_without(names);
        let query = [own.as_str(), ours].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
        let path = self.url.path();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// The whole URL with parameters of ours.
    pub fn with_query(&self, names: &[&str], ours: &str) -> String {
        format!("{}{}", self.url.origin().ascii_serialization(), self.path_with_query(names, ours))
    }

    /// The query as it was given, without the parameters that ours replace.
    fn query_without(&self, names: &[&str]) -> String {
        let own = self.url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let name = |pair: &str| {
            let raw = pair.split('=').next().unwrap_or_default().replace('+', " ");
            percent_encoding::percent_decode_str(&raw).decode_utf8_lossy().into_owned()
        };
        own.filter(|pair| !names.contains(&name(pair).as_str())).collect::<Vec<_>>().join("&")
    }
}

impl TryFrom<String> for Target {
    type Error = BadTarget;

    fn try_from(text: String) -> Result<Self, BadTarget> {
        Self::parse(&text)
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.text
    }
}

/// Whether an address may be called. `allowed` lists networks besides the public ones.
pub fn judge(address: IpAddr, secure: bool, allowed: &[IpNet]) -> Result<(), Refused> {
    let given = address.to_canonical();
    let address = unmapped(address);
    if metadata(address) {
        return Err(Refused::Metadata(address));
    }
    // what is reached through a relay is in no listed network
    let listed = allowed.iter().any(|net| net.contains(&given));
    match (listed, public(address), secure) {
        (true, ..) | (_, true, true) => Ok(()),
        (false, true, false) => Err(Refused::Plain(address)),
        (false, false, _) => Err(Refused::Special(address)),
    }
}

/// An IPv4 address in any of its IPv6 clothes is IPv4: mapped, compatible, NAT64, 6to4.
fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let octets = six.octets();
    let four = |at: usize| IpAddr::V4(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]));
    match six.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => four(12),
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => four(12),
        [0x2002, ..] => four(2),
        _ => address,
    }
}

fn metadata(address: IpAddr) -> bool {
    const FOUR: [Ipv4Addr; 6] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 170, 2),
        Ipv4Addr::new(169, 254, 170, 23),
        Ipv4Addr::new(169, 254, 42, 42),
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    const SIX: [Ipv6Addr; 4] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    ];
    match address {
        IpAddr::V4(four) => FOUR.contains(&four),
        IpAddr::V6(six) => SIX.contains(&six),
    }
}

/// Neither private, local, shared, reserved, for documentation nor for many (RFC 6890).
fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, _] = four.octets();
            !(four.is_private()
                || four.is_loopback()
                || four.is_link_local()
                || four.is_multicast()
                || four.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && (b == 18 || b == 19)))
        }
        // of IPv6 only 2000::/3 is in public use, less documentation and its like
        IpAddr::V6(six) => match six.segments() {
            [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
            [0x3fff, second, ..] => second >= 0x1000,
            [first, ..] => (0x2000..0x4000).contains(&first),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_of_servers_are_taken() {
        assert!(Target::parse("https://auth.example:8443/token?a=b").is_ok());
        for (text, want) in [
            ("file:///etc/passwd", BadTarget::Scheme),
            ("gopher://x/y", BadTarget::Scheme),
            ("https://user:pw@x/token", BadTarget::UserInfo),
            ("https://x/token#a", BadTarget::Fragment),
            ("/token", BadTarget::NotAUrl("/token".into())),
            ("https://x/to\nken", BadTarget::NotAUrl("https://x/to\\nken".into())),
            ("https://x\\@y/token", BadTarget::NotAUrl("..@..".into())),
            ("https://u:pw@x/a b", BadTarget::NotAUrl("..@..".into())),
        ] {
            assert_eq!(Target::parse(text), Err(want), "{text}");
        }
    }

    #[test]
    fn own_parameters_stay_as_they_are_and_ours_take_their_place() {
        let target = Target::parse("https://x/t?b=%20+&scope=a&%73cope=b&c").expect("a target");
        assert_eq!(target.query_without(&["scope"]), "b=%20+&c");
        assert_eq!(target.query_without(&[]), "b=%20+&scope=a&%73cope=b&c");
    }

    #[test]
    fn addresses_in_any_disguise_are_judged_as_what_they_are() {
        for text in ["https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/"] {
            let target = Target::parse(text).expect("a target");
            assert_eq!(target.host(), Some(Host::Ipv4(Ipv4Addr::LOCALHOST)), "{text}");
        }
        let judged = |text: &str| judge(text.parse().expect("an address"), true, &[]);
        for public in ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34"] {
            assert_eq!(judged(public), Ok(()), "{public}");
        }
        for metadata in
            ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "100.100.100.200"]
        {
            assert!(matches!(judged(metadata), Err(Refused::Metadata(_))), "{metadata}");
        }
        for special in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "::7f00:1",
        ] {
            assert!(matches!(judged(special), Err(Refused::Special(_))), "{special}");
        }
    }

    #[test]
    fn what_a_proxy_connects_to_is_judged_as_far_as_it_says_where_it_is() {
        let loopback = ["127.0.0.0/8".parse().expect("a network")];
        let judged = |text: &str| Target::parse(text).expect("a target").judge_by_name(&[]);
        let listed = |text: &str| Target::parse(text).expect("a target").judge_by_name(&loopback);
        assert!(listed("http://127.0.0.1/t").is_ok() && listed("https://localhost/t").is_ok());
        assert!(listed("http://169.254.169.254/t").is_err() && listed("http://[::1]/t").is_err());
        for (text, good) in [
            ("http://virtual.internal:80/t", true),
            ("https://10.1.2.3/t", true),
            ("http://169.254.169.254/t", false),
            ("http://2852039166/t", false),
            ("http://[::ffff:127.0.0.1]/t", false),
            ("http://localhost./t", false),
            ("http://x.localhost/t", false),
            ("http://0.0.0.0/t", false),
        ] {
            assert_eq!(judged(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_listed_network_may_be_called_but_metadata_never() {
        let allowed = ["127.0.0.0/8".parse().expect("a network"), "169.254.0.0/16".parse().expect("a network")];
        let judged = |text: &str, secure| judge(text.parse().expect("an address"), secure, &allowed);
        assert_eq!(judged("127.0.0.1", false), Ok(()));
        assert!(matches!(judged("169.254.169.254", true), Err(Refused::Metadata(_))));
        assert!(matches!(judged("93.184.216.34", false), Err(Refused::Plain(_))));
    }
}
