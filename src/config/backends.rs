//! Backends, from said to meant.

use super::file::{BackendSection, BackendTlsSection, HealthSection, InterimWord, ProtocolWord, ServerEntry};
use super::meaning::Meaning;
use super::{Listener, SharedBackend};
use crate::crypto::client_tls::ClientTls;
use crate::crypto::digest::hex;
use crate::crypto::identity::Identity;
use crate::domain::backend::{Backend, Bounds, Ejection, Health, Protocol, Server, Times};
use http::HeaderValue;
use http::uri::PathAndQuery;
use rustls_pki_types::{CertificateDer, ServerName};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_CONNECT: Duration = Duration::from_secs(5);
const DEFAULT_IDLE: Duration = Duration::from_secs(300);
const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// A call notes the servers that it has tried in so many bits.
const MOST_SERVERS: usize = 64;

impl Meaning<'_> {
    pub(super) fn backends(
        &mut self,
        said: &BTreeMap<String, BackendSection>,
        listeners: &[Listener],
        admin: SocketAddr,
    ) -> HashMap<String, SharedBackend> {
        let own = |authority: &str| own_address(authority, listeners, admin);
        said.iter().map(|(name, one)| (name.clone(), Arc::new(self.backend(name, one, &own)))).collect()
    }

    fn backend(&mut self, name: &str, said: &BackendSection, own: &dyn Fn(&str) -> Option<&'static str>) -> Backend {
        let pointer = format!("/backends/{name}");
        let protocol = match said.protocol {
            ProtocolWord::Http1 => Protocol::Http1,
            ProtocolWord::Http2 => Protocol::Http2,
            ProtocolWord::Auto => Protocol::Negotiated,
        };
        let material = said.tls.as_ref().map(|tls| self.backend_tls(&format!("{pointer}/tls"), tls));
        let mut material = material.unwrap_or_default();
        let mut servers = Vec::new();
        for (at, entry) in said.servers.iter().enumerate() {
            let (text, weight, pointer) = match entry {
                ServerEntry::Url(text) => (text, 1, format!("{pointer}/servers/{at}")),
                ServerEntry::Weighted(one) => (&one.url, one.weight, format!("{pointer}/servers/{at}/url")),
            };
            let address = match Address::parse(text) {
                Ok(address) => address,
                Err(remedy) => {
                    self.error(&pointer, format!("`{text}` is not a server address"), remedy);
                    continue;
                }
            };
            if let Some(ours) = own(&address.authority) {
                self.error(
                    &pointer,
                    format!("`{text}` is {ours} of this gateway: a call would go round in circles"),
                    "name the server that does the work",
                );
            }
            let tls = if address.secure { self.client_tls(&pointer, &mut material, &address, protocol) } else { None };
            servers.push(address.server(weight, tls, (protocol, said.max_connections)));
        }
        self.check_servers(name, said);
        let optional = |this: &mut Self, key: &str, text: &Option<String>, most| {
            let pointer = format!("{pointer}/{key}");
            text.as_deref().map(|text| this.duration(&pointer, text, MILLISECOND, most))
        };
        let times = Times {
            connect: optional(self, "connect_timeout", &said.connect_timeout, HOUR).unwrap_or(DEFAULT_CONNECT),
            answer: optional(self, "timeout", &said.timeout, HOUR).unwrap_or(DEFAULT_TIMEOUT),
            idle: optional(self, "idle_timeout", &said.idle_timeout, DAY).unwrap_or(DEFAULT_IDLE),
            total: optional(self, "total_timeout", &said.total_timeout, DAY),
        };
        let out = self.duration(&format!("{pointer}/ejection/time"), &said.ejection.time, MILLISECOND, HOUR);
        Backend {
            name: name.to_owned(),
            servers,
            protocol,
            times,
            bounds: Bounds { connections: said.max_connections, requests: said.max_requests },
            interim: said.interim_responses == InterimWord::Pass,
            ejection: Ejection {
                failures: (said.ejection.failures > 0).then_some(said.ejection.failures),
                time: u64::try_from(out.as_millis()).unwrap_or(u64::MAX),
            },
            health: said.health.as_ref().and_then(|health| self.health(&format!("{pointer}/health"), health)),
        }
    }

    fn check_servers(&mut self, name: &str, said: &BackendSection) {
        let pointer = format!("/backends/{name}");
        if said.servers.is_empty() {
            self.error(
                &pointer,
                format!("backend `{name}` has no servers"),
                "add `servers: [\"http://127.0.0.1:9001\"]`",
            );
        }
        if said.servers.len() > MOST_SERVERS {
            self.error(
                &format!("{pointer}/servers"),
                format!("backend `{name}` has more than {MOST_SERVERS} servers"),
                "put a load balancer before them, or make two backends",
            );
        }
        let secure = said.servers.iter().any(|entry| match entry {
            ServerEntry::Url(url) | ServerEntry::Weighted(super::file::ServerSection { url, .. }) => {
                url.starts_with("https:")
            }
        });
        if said.tls.is_some() && !secure {
            self.error(
                &format!("{pointer}/tls"),
                format!("backend `{name}` has no https server"),
                "write its servers as https://host:port, or take `tls` away",
            );
        }
        if said.protocol == ProtocolWord::Auto && !secure {
            self.error(
                &format!("{pointer}/protocol"),
                "without TLS there is nothing to negotiate",
                "say `http1` or `http2`",
            );
        }
    }

    fn backend_tls(&mut self, pointer: &str, said: &BackendTlsSection) -> Material {
        let cas = said.trusted_cas.as_ref().map(|list| self.trusted_cas(pointer, list));
        let cas = cas.map(|list| list.into_iter().map(|ca| ca.der).collect());
        let identity = match (&said.certificate, &said.key) {
            (Some(certificate), Some(key)) => self.identity(pointer, certificate, key),
            (None, None) => None,
            _ => {
                self.error(pointer, "`certificate` and `key` belong together", "give both, or neither");
                None
            }
        };
        let name = said.server_name.as_ref().and_then(|text| match ServerName::try_from(text.clone()) {
            Ok(name) => Some(name),
            Err(_) => {
                self.error(
                    &format!("{pointer}/server_name"),
                    format!("`{text}` is no host name"),
                    "write it as in the server's certificate",
                );
                None
            }
        });
        Material { cas, identity, name }
    }

    fn client_tls(
        &mut self,
        pointer: &str,
        material: &mut Material,
        address: &Address,
        protocol: Protocol,
    ) -> Option<Arc<ClientTls>> {
        let protocols: &[&[u8]] = match protocol {
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
            Protocol::Negotiated => &[b"h2", b"http/1.1"],
        };
        let cas = material.cas.get_or_insert_with(|| rustls_native_certs::load_native_certs().certs);
        let identity = material.identity.clone();
        let name = material.name.clone().or_else(|| ServerName::try_from(address.host.clone()).ok());
        let made = name
            .ok_or_else(|| "its name cannot be in a certificate".to_owned())
            .and_then(|name| ClientTls::new(cas, identity, name, protocols).map_err(|error| error.to_string()));
        match made {
            Ok(tls) => Some(Arc::new(tls)),
            Err(error) => {
                self.error(pointer, format!("TLS to this server cannot be set up: {error}"), "correct its `tls`");
                None
            }
        }
    }

    fn health(&mut self, pointer: &str, said: &HealthSection) -> Option<Health> {
        let (least, most) = (Duration::from_millis(100), HOUR);
        let interval = self.duration(&format!("{pointer}/interval"), &said.interval, least, most);
        let timeout = self.duration(&format!("{pointer}/timeout"), &said.timeout, MILLISECOND, most);
        if !said.path.starts_with('/') || PathAndQuery::try_from(said.path.as_str()).is_err() {
            self.error(&format!("{pointer}/path"), format!("`{}` is no path", said.path), "write it as /health");
            return None;
        }
        let path = said.path.clone();
        Some(Health { path, interval, timeout, down_after: said.down_after, up_after: said.up_after })
    }
}

/// What the servers of a backend share of TLS.
#[derive(Default)]
struct Material {
    cas: Option<Vec<CertificateDer<'static>>>,
    identity: Option<Identity>,
    name: Option<ServerName<'static>>,
}

struct Address {
    secure: bool,
    /// Without the brackets of IPv6.
    host: String,
    authority: String,
    base_path: String,
    name: HeaderValue,
}

impl Address {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "write it as http://host:port or https://host:port, with a base path if need be";
        let url = Url::parse(text).map_err(|_| SHAPE)?;
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(SHAPE),
        };
        let plain =
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        let host = url.host_str().filter(|_| plain).ok_or(SHAPE)?;
        let authority = format!("{host}:{}", url.port_or_known_default().ok_or(SHAPE)?);
        Ok(Self {
            secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            name: HeaderValue::from_str(&authority).map_err(|_| SHAPE)?,
            base_path: url.path().trim_end_matches('/').to_owned(),
            authority,
        })
    }

    fn server(self, weight: u32, tls: Option<Arc<ClientTls>>, settings: (Protocol, Option<usize>)) -> Server {
        let secured = tls.as_ref().map(|tls| hex(&tls.digest)).unwrap_or_default();
        let key = format!("{} {settings:?} {secured}", self.authority);
        Server {
            authority: self.authority.into(),
            key: key.into(),
            host: self.name,
            base_path: self.base_path,
            weight,
            tls,
            standing: Arc::default(),
        }
    }
}

/// Whether an address is one of our own, wildcard listeners included.
fn own_address(authority: &str, listeners: &[Listener], admin: SocketAddr) -> Option<&'static str> {
    let authority = authority.replace("localhost:", "127.0.0.1:");
    let target: SocketAddr = authority.parse().ok()?;
    let same = |ours: SocketAddr| {
        let everywhere = ours.ip().is_unspecified() && target.ip().is_loopback();
        ours.port() == target.port() && (ours.ip() == target.ip() || everywhere)
    };
    if same(admin) {
        return Some("the admin listener");
    }
    listeners.iter().any(|one| same(one.address)).then_some("a listener")
}
