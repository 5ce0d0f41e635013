//! From what the file says to what it means. Each function takes one section and reports every
//! fault that it finds.

use super::fault::Faults;
use super::file::{AcceptFirst, File, LimitsSection, ListenerSection, RefuseFirst, TlsSection};
use super::routing::Known;
use super::source::Places;
use super::{AccessLog, Config, Limits, Listener, MasterKeySource, StoreSetting, TenantSetting, TlsMaterial, Tokens};
use super::{disk, units};
use crate::crypto::digest::sha256;
use crate::crypto::identity::Identity;
use crate::crypto::seal::MasterKey;
use crate::crypto::trust::Revocation;
use crate::crypto::x509::{self, Crl};
use crate::domain::key::Origin;
use http::HeaderName;
use ipnet::IpNet;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::SecretString;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

pub struct Meaning<'a> {
    base: &'a Path,
    pub(super) places: &'a Places,
    pub(super) faults: &'a mut Faults,
    watch: Vec<PathBuf>,
    /// Digests of all that was read.
    seen: Vec<u8>,
    pub(super) crls: Vec<Crl>,
}

impl<'a> Meaning<'a> {
    pub fn new(base: &'a Path, places: &'a Places, faults: &'a mut Faults) -> Self {
        Self { base, places, faults, watch: Vec::new(), seen: Vec::new(), crls: Vec::new() }
    }

    pub fn config(mut self, said: &File) -> Config {
        let mtls_url = said.mtls_url.as_ref().map(|text| self.origin("/mtls_url", text));
        let origin = Origin { url: self.origin("/public_url", &said.public_url), mtls_url };
        let admin = self.address("/admin/address", &said.admin.address);
        let listeners = self.listeners(&said.listeners, admin);
        let trusted_cas = self.trusted_cas("", &said.trusted_cas);
        let revocation = Revocation {
            expired_refuses: said.revocation.expired_crl == RefuseFirst::Refuse,
            required: said.revocation.without_crl == AcceptFirst::Refuse,
        };
        let tenant = self.tenant(said);
        let tokens = self.tokens(said);
        let limits = self.limits(&said.limits);
        let store = self.store(said);
        let outbound = self.outbound(&said.outbound);
        let issuers = self.issuers(said, &origin);
        let backends = self.backends(&said.backends, &listeners, admin);
        let route_cas = self.route_cas(&said.routes);
        let crls = std::mem::take(&mut self.crls);
        let lists = route_cas.iter().map(|list| self.trust(list.as_deref()?, &crls, revocation)).collect::<Vec<_>>();
        self.trust(&trusted_cas, &crls, revocation);
        let known = Known { backends: &backends, issuers: &issuers, limits: &limits };
        let routes = self.routes(&said.routes, &known, &lists);
        // written, not read: it is no reason to load again
        let file = said.access_log.file.as_ref().map(|file| self.base.join(file));
        let access_log = AccessLog { format: said.access_log.format, file };
        let (watch, seen) = (self.watch, sha256(&self.seen));
        Config {
            origin,
            tenant,
            listeners,
            admin,
            store,
            trusted_cas,
            route_cas: route_cas.into_iter().flatten().flatten().collect(),
            crls,
            revocation,
            outbound,
            issuers,
            access_log,
            tokens,
            limits,
            routes,
            watch,
            seen,
        }
    }

    pub(super) fn error(&mut self, pointer: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let place = self.places.of(pointer);
        self.faults.error(place, message, remedy);
    }

    pub(super) fn text(&mut self, path: &Path) -> std::io::Result<String> {
        let text = disk::text(path)?;
        self.seen.extend_from_slice(&sha256(text.as_bytes()));
        Ok(text)
    }

    pub(super) fn path(&mut self, text: &str) -> PathBuf {
        let path = self.base.join(text);
        self.watch.push(path.clone());
        path
    }

    fn origin(&mut self, pointer: &str, text: &str) -> String {
        let parsed = Url::parse(text).ok().filter(|url| {
            let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            bare && url.username().is_empty() && matches!(url.scheme(), "https" | "http") && url.has_host()
        });
        match parsed {
            Some(url) => url.origin().ascii_serialization(),
            None => {
                self.error(
                    pointer,
                    format!("`{text}` is not an origin"),
                    "give scheme, host and port only, such as https://gateway.example.com: clients cut off any path",
                );
                String::new()
            }
        }
    }

    fn address(&mut self, pointer: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.error(
                pointer,
                format!("`{text}` is not an address with a port"),
                "write it as 127.0.0.1:8443 or [::1]:8443",
            );
            SocketAddr::from(([0, 0, 0, 0], 0))
        })
    }

    pub(super) fn duration(&mut self, pointer: &str, text: &str, least: Duration, most: Duration) -> Duration {
        match units::duration(text) {
            Some(value) if (least..=most).contains(&value) => value,
            Some(_) => {
                self.error(pointer, format!("`{text}` is out of bounds"), format!("use {least:?} to {most:?}"));
                least
            }
            None => {
                self.error(
                    pointer,
                    format!("`{text}` is not a duration"),
                    "write it with a unit, such as 500ms, 60s, 10m, 30d",
                );
                least
            }
        }
    }

    pub(super) fn size(&mut self, pointer: &str, text: &str, least: u64, most: u64) -> u64 {
        match units::size(text) {
            Some(value) if (least..=most).contains(&value) => value,
            Some(_) => {
                self.error(pointer, format!("`{text}` is out of bounds"), format!("use {least} to {most} bytes"));
                least
            }
            None => {
                self.error(
                    pointer,
                    format!("`{text}` is not a size"),
                    "write it as bytes or with KiB, MiB or GiB, such as 40MiB",
                );
                least
            }
        }
    }

    fn listeners(&mut self, said: &[ListenerSection], admin: SocketAddr) -> Vec<Listener> {
        let mut out = Vec::new();
        if said.is_empty() {
            self.error("/listeners", "there is no listener", "add one with an address, or leave `listeners` out");
        }
        let mut taken = HashMap::from([(admin, "the admin listener")]);
        for (index, one) in said.iter().enumerate() {
            let pointer = format!("/listeners/{index}");
            let address = self.address(&format!("{pointer}/address"), &one.address);
            if address.port() != 0
                && let Some(other) = taken.insert(address, "another listener")
            {
                self.error(
                    &format!("{pointer}/address"),
                    format!("{address} is taken by {other}"),
                    "give each listener its own address",
                );
            }
            let tls = one.tls.as_ref().and_then(|tls| self.tls(&format!("{pointer}/tls"), tls));
            let trusted_proxies = self.networks(&format!("{pointer}/trusted_proxies"), &one.trusted_proxies);
            let certificate_header = self.certificate_header(&pointer, one);
            out.push(Listener {
                address,
                connections: one.connections,
                tls,
                trusted_proxies,
                certificate_header,
                proxy_protocol: one.proxy_protocol,
            });
        }
        out
    }

    pub(super) fn networks(&mut self, pointer: &str, said: &[String]) -> Vec<IpNet> {
        let mut out = Vec::new();
        for (at, text) in said.iter().enumerate() {
            match text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into)) {
                Ok(net) => out.push(net),
                Err(_) => self.error(
                    &format!("{pointer}/{at}"),
                    format!("`{text}` is not a network"),
                    "write it as 10.0.0.0/8 or as one address",
                ),
            }
        }
        out
    }

    /// A header that only trusted proxies may set; one that means something else already cannot be it.
    fn certificate_header(&mut self, pointer: &str, said: &ListenerSection) -> Option<HeaderName> {
        if said.trusted_proxies.is_empty() && (said.certificate_header.is_some() || said.proxy_protocol) {
            self.error(
                pointer,
                "nobody is trusted to set a certificate header or a PROXY header",
                "list the proxies' addresses in `trusted_proxies`",
            );
        }
        if said.certificate_header.is_some() && said.proxy_protocol {
            let place = self.places.of(&format!("{pointer}/proxy_protocol"));
            self.faults.warn(
                place,
                "a proxy that only passes bytes on would let callers write the certificate header themselves",
                "this is right if every trusted proxy speaks HTTP and replaces that header",
            );
        }
        let text = said.certificate_header.as_ref()?;
        let taken = ["authorization", "cookie", "host", "client-cert-chain", "connection", "content-length"];
        match HeaderName::try_from(text.as_str()) {
            Ok(name) if !taken.contains(&name.as_str()) => Some(name),
            _ => {
                self.error(
                    &format!("{pointer}/certificate_header"),
                    format!("`{text}` cannot be a certificate header"),
                    "name the header that the proxy sets, such as x-forwarded-client-cert, client-cert or x-ssl-client-cert",
                );
                None
            }
        }
    }

    fn tls(&mut self, pointer: &str, said: &TlsSection) -> Option<TlsMaterial> {
        let identity = self.identity(pointer, &said.certificate, &said.key);
        let others = said.certificates.iter().enumerate();
        let others =
            others.map(|(at, one)| self.identity(&format!("{pointer}/certificates/{at}"), &one.certificate, &one.key));
        let others = others.collect::<Vec<_>>().into_iter().flatten().collect();
        let trusted_cas = said.trusted_cas.as_ref().map(|list| self.trusted_cas(pointer, list));
        Some(TlsMaterial { identity: identity?, others, trusted_cas })
    }

    /// A certificate chain with its key, from two files that stand below a place.
    pub(super) fn identity(&mut self, pointer: &str, certificate: &str, key: &str) -> Option<Identity> {
        let (at_certificate, at_key) = (format!("{pointer}/certificate"), format!("{pointer}/key"));
        let chain = self.read(&at_certificate, certificate).and_then(|text| match x509::chain(&text) {
            Ok(chain) => Some(chain),
            Err(error) => {
                self.error(
                    &at_certificate,
                    format!("{certificate}: {error}"),
                    "give the certificate and its intermediates as PEM",
                );
                None
            }
        });
        let private = self.read(&at_key, key).and_then(|text| match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(key) => Some(key),
            Err(_) => {
                self.error(
                    &at_key,
                    format!("{key} holds no private key"),
                    "give an unencrypted key as PEM (PKCS#8, PKCS#1 or SEC1)",
                );
                None
            }
        });
        match Identity::paired(chain?, private?) {
            Ok(identity) => Some(identity),
            Err(error) => {
                self.error(&at_key, error.to_string(), "give the key that the certificate was made for");
                None
            }
        }
    }

    pub(super) fn read(&mut self, pointer: &str, text: &str) -> Option<String> {
        let path = self.path(text);
        match self.text(&path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.error(
                    pointer,
                    format!("{text} cannot be read: {error}"),
                    "correct the path; relative ones start at the folder of this file",
                );
                None
            }
        }
    }

    fn tenant(&mut self, said: &File) -> TenantSetting {
        let word = |text: &str| {
            !text.is_empty()
                && text.len() <= 128
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_!.|".contains(&byte))
        };
        let tenant = &said.tenant;
        if !word(&tenant.subdomain) {
            self.error("/tenant/subdomain", "the subdomain is not a simple word", "use letters, digits and `-`");
        }
        if tenant.zid.as_deref().is_some_and(|zid| uuid::Uuid::parse_str(zid).is_err()) {
            self.error("/tenant/zid", "the zid is not a UUID", "leave it out to have one made");
        }
        if tenant.xsappname.as_deref().is_some_and(|name| !word(name)) {
            self.error(
                "/tenant/xsappname",
                "the xsappname is not a simple word",
                "write it as it-rt-<subdomain>!b<number>",
            );
        }
        TenantSetting {
            subdomain: tenant.subdomain.clone(),
            zid: tenant.zid.clone(),
            xsappname: tenant.xsappname.clone(),
        }
    }

    fn tokens(&mut self, said: &File) -> Tokens {
        let day = Duration::from_secs(86_400);
        let rotate_every = self.duration("/tokens/rotate_every", &said.tokens.rotate_every, day, day * 366);
        let leeway = self.duration("/tokens/leeway", &said.tokens.leeway, Duration::ZERO, Duration::from_secs(300));
        Tokens {
            algorithm: said.tokens.algorithm,
            rotate_every: rotate_every.as_secs().cast_signed(),
            leeway: leeway.as_secs().cast_signed(),
        }
    }

    fn limits(&mut self, said: &LimitsSection) -> Limits {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        let mut small = |name: &str, text: &str, least: u64, most: u64| {
            usize::try_from(self.size(&format!("/limits/{name}"), text, least, most)).unwrap_or(usize::MAX)
        };
        let header_bytes = small("header_bytes", &said.header_bytes, 8 << 10, 1 << 20);
        let token_request = small("token_request", &said.token_request, 1 << 10, 1 << 20);
        let token_cache = small("token_cache", &said.token_cache, 64 << 10, 16 << 30) as u64;
        Limits {
            target: said.target,
            header_bytes,
            header_count: said.header_count,
            header_time: self.duration("/limits/header_time", &said.header_time, second, hour),
            body_gap: self.duration("/limits/body_gap", &said.body_gap, Duration::ZERO, hour),
            body_time: self.duration("/limits/body_time", &said.body_time, Duration::ZERO, hour * 24),
            write_gap: self.duration("/limits/write_gap", &said.write_gap, second, hour),
            idle_time: self.duration("/limits/idle_time", &said.idle_time, second, hour),
            handshake_time: self.duration("/limits/handshake_time", &said.handshake_time, second, hour),
            connections: said.connections,
            connections_per_address: said.connections_per_address,
            requests: said.requests,
            http2_streams: said.http2_streams,
            http2_resets: said.http2_resets,
            client_rate: self.rate("/limits/client_rate", said.client_rate.as_deref()),
            token_rate: self.rate("/limits/token_rate", said.token_rate.as_deref()),
            token_request,
            token_cache,
            drain_time: self.duration("/limits/drain_time", &said.drain_time, Duration::ZERO, hour),
            idle_backend_connections: said.idle_backend_connections,
        }
    }

    fn store(&mut self, said: &File) -> StoreSetting {
        let path = match said.store.url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => self.base.join(path.trim_start_matches("//")),
            _ => {
                self.error(
                    "/store/url",
                    format!("`{}` is not a store of this version", said.store.url),
                    "write it as sqlite:data/flowgate.db",
                );
                PathBuf::new()
            }
        };
        let master_key = match said.store.master_key.strip_prefix("file:") {
            Some(file) => MasterKeySource::File(self.base.join(file)),
            None => {
                let text = SecretString::from(said.store.master_key.clone());
                if let Err(error) = MasterKey::parse(&text) {
                    self.error(
                        "/store/master_key",
                        error.to_string(),
                        "name a file that does not exist yet with ${file:PATH}, and it is made for an empty store",
                    );
                }
                MasterKeySource::Given(text)
            }
        };
        StoreSetting { path, master_key }
    }
}
