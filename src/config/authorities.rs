//! Lists of trusted CAs, from said to meant: files and folders of certificates, with the revocation
//! lists that lie beside them.

use super::disk;
use super::file::{ConnectivityProxySection, OutboundSection, RouteSection};
use super::meaning::Meaning;
use super::{ConnectivityProxy, Outbound};
use crate::crypto::trust::{self, Revocation, Trust};
use crate::crypto::x509::{self, Certificate, Crl};
use crate::domain::name::ArtifactName;
use crate::domain::target::Target;
use std::path::Path;
use std::sync::Arc;

impl Meaning<'_> {
    /// The list that stands below `trusted_cas` at a place.
    pub(super) fn trusted_cas(&mut self, at: &str, said: &[String]) -> Vec<Certificate> {
        let mut out: Vec<Certificate> = Vec::new();
        for (index, text) in said.iter().enumerate() {
            let pointer = format!("{at}/trusted_cas/{index}");
            let path = self.path(text);
            let files = match disk::certificate_files(&path) {
                Ok(files) => files,
                Err(error) => {
                    self.error(
                        &pointer,
                        format!("{text} cannot be read: {error}"),
                        "name a PEM file, or a folder with *.pem, *.crt, *.cer or *.crl files",
                    );
                    continue;
                }
            };
            for file in files {
                for one in self.authorities(&pointer, &file) {
                    if !out.iter().any(|known| known.fingerprint == one.fingerprint) {
                        out.push(one);
                    }
                }
            }
        }
        out
    }

    /// The lists of single routes, in the routes' order.
    pub(super) fn route_cas(&mut self, said: &[RouteSection]) -> Vec<Option<Vec<Certificate>>> {
        let list = |(index, route): (usize, &RouteSection)| {
            Some(self.trusted_cas(&format!("/routes/{index}"), route.trusted_cas.as_ref()?))
        };
        said.iter().enumerate().map(list).collect()
    }

    /// A list ready to judge with, or a fault.
    pub(super) fn trust(&mut self, list: &[Certificate], crls: &[Crl], revocation: Revocation) -> Option<Arc<Trust>> {
        match Trust::new(list.to_vec(), crls.to_vec(), revocation) {
            Ok(trust) => Some(Arc::new(trust)),
            Err(unfit) => {
                self.error("/trusted_cas", unfit.to_string(), "give CA certificates and their own revocation lists");
                None
            }
        }
    }

    /// Where outbound calls may go. A token service's CA may be for serverAuth alone.
    pub(super) fn outbound(&mut self, said: &OutboundSection) -> Outbound {
        let allow_networks = self.networks("/outbound/allow_networks", &said.allow_networks);
        let mut trusted_cas = Vec::new();
        for (index, text) in said.trusted_cas.iter().enumerate() {
            let path = self.path(text);
            let read = disk::certificate_files(&path).map_err(|error| error.to_string()).and_then(|files| {
                let texts = files.iter().map(|file| self.text(file).map_err(|error| error.to_string()));
                let texts = texts.collect::<Result<Vec<_>, _>>()?;
                let chains = texts.iter().map(|text| x509::uploaded(text).map_err(|error| error.to_string()));
                Ok(chains.collect::<Result<Vec<_>, _>>()?.concat())
            });
            match read {
                Ok(mut ders) => trusted_cas.append(&mut ders),
                Err(error) => self.error(
                    &format!("/outbound/trusted_cas/{index}"),
                    format!("{text}: {error}"),
                    "give CA certificates as PEM",
                ),
            }
        }
        let connectivity_proxy = said.connectivity_proxy.as_ref().and_then(|said| self.connectivity_proxy(said));
        Outbound { allow_networks, trusted_cas, connectivity_proxy }
    }

    fn connectivity_proxy(&mut self, said: &ConnectivityProxySection) -> Option<ConnectivityProxy> {
        let at = "/outbound/connectivity_proxy";
        let url = match Target::parse(&said.url) {
            Ok(url) if !url.secure() => Some(url),
            _ => {
                self.error(
                    &format!("{at}/url"),
                    format!("`{}` is not the URL of a forward proxy", said.url),
                    "write it as http://host:port",
                );
                None
            }
        };
        let credential = said.credential.as_deref().map(ArtifactName::parse).transpose();
        if let Err(error) = &credential {
            self.error(&format!("{at}/credential"), error.to_string(), "see `flowgate credential list`");
        }
        Some(ConnectivityProxy { url: url?, credential: credential.ok()? })
    }

    fn authorities(&mut self, pointer: &str, file: &Path) -> Vec<Certificate> {
        let shown = file.display();
        let read = self.text(file).map_err(|error| error.to_string()).and_then(|text| {
            let crls = x509::crls(&text).map_err(|error| error.to_string())?;
            let ders = if crls.is_empty() { x509::uploaded(&text) } else { x509::uploaded(&text).or(Ok(Vec::new())) };
            Ok((ders.map_err(|error: x509::CertificateError| error.to_string())?, crls))
        });
        let ders = match read {
            Ok((ders, crls)) => {
                let fresh: Vec<_> = crls.into_iter().filter(|crl| !self.crls.contains(crl)).collect();
                self.crls.extend(fresh);
                ders
            }
            Err(error) => {
                self.error(pointer, format!("{shown}: {error}"), "give CA certificates and revocation lists as PEM");
                return Vec::new();
            }
        };
        let mut out = Vec::new();
        for der in ders {
            let read = Certificate::from_der(&der).map_err(trust::Unfit::from);
            match read.and_then(|one| trust::fit(&one).map(|()| one)) {
                Ok(one) => out.push(one),
                Err(error) => self.error(
                    pointer,
                    format!("{shown}: {error}"),
                    "only CAs belong here; a partner's own certificate becomes a key of type certificate_external",
                ),
            }
        }
        out
    }
}
