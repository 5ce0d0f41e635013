//! The configuration in force: which sockets are open, with which certificates, over which routes.
//! `apply` moves from one configuration to the next without closing what stays.

use super::bound::Bound;
use super::handover::Handed;
use super::lanes::Lanes;
use super::{ServeError, needs_restart};
use crate::config::{Config, Limits, Listener};
use crate::domain::route::Routes;
use crate::gateway::state::Authorities;
use crate::gateway::{Gateway, issuers};
use crate::net::addresses::Addresses;
use crate::net::certificate_header::CertificateHeader;
use crate::net::health;
use crate::net::listen::{Listening, Proxies};
use crate::net::tls::{self, Believed};
use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// An open socket.
struct Open {
    socket: TcpListener,
    shared: Arc<Listening>,
    stop: CancellationToken,
    bound: SocketAddr,
}

pub struct Site {
    gateway: Arc<Gateway>,
    lanes: Lanes,
    stop: CancellationToken,
    connections: Bound,
    addresses: Arc<Addresses>,
    handed: Handed,
    /// Ends the health checks of the configuration in force.
    checks: CancellationToken,
    /// By the address as configured and whether it is TLS.
    open: HashMap<(SocketAddr, bool), Open>,
    config: Option<Arc<Config>>,
    authorities: Option<Arc<Authorities>>,
}

impl Site {
    pub fn new(gateway: Arc<Gateway>, lanes: Lanes, stop: CancellationToken, limits: &Limits, handed: Handed) -> Self {
        Self {
            gateway,
            lanes,
            checks: stop.child_token(),
            stop,
            connections: Bound::new(limits.connections),
            addresses: Arc::default(),
            handed,
            open: HashMap::new(),
            config: None,
            authorities: None,
        }
    }

    /// Lets go of the sockets that were handed over and no listener has taken.
    pub fn tell_unused(&mut self) {
        std::mem::take(&mut self.handed).tell_unused();
    }

    /// The addresses as bound, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.config.iter().flat_map(|config| &config.listeners);
        listeners.filter_map(|one| self.open.get(&key(one)).map(|open| open.bound)).collect()
    }

    pub fn config(&self) -> Option<Arc<Config>> {
        self.config.clone()
    }

    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Takes a configuration: everything that can fail comes first, so that a failure changes
    /// nothing.
    pub fn apply(&mut self, config: Config) -> Result<(), ServeError> {
        let authorities = self.gateway.state.authorities.load_full();
        let mut fresh = Vec::new();
        for listener in &config.listeners {
            let tls = self.tls(listener, &authorities)?;
            let socket = if self.open.contains_key(&key(listener)) {
                None
            } else {
                let failed = |error| ServeError::Bind { address: listener.address, error };
                match self.release(listener) {
                    Some(socket) => Some((socket, false)),
                    None => Some(self.handed.bind(listener.address).map_err(failed)?),
                }
            };
            fresh.push((listener, tls, socket));
        }
        // routes come before the sockets on which they are asked for
        let state = &self.gateway.state;
        state.limits.store(Arc::new(config.limits));
        let issuers = issuers::configured(&config.issuers, &state.issuers.load());
        state.issuers.store(Arc::new(issuers));
        let routes = Routes::succeed(config.routes.clone(), &state.routes.load());
        self.check_health(&routes);
        let state = &self.gateway.state;
        state.swap(&state.routes, routes);
        for (listener, tls, socket) in fresh {
            match socket {
                None => self.refresh(listener, tls, &config),
                Some(socket) => self.listen(listener, tls, socket, &config)?,
            }
        }
        let wanted: Vec<_> = config.listeners.iter().map(key).collect();
        self.open.retain(|key, open| {
            let keep = wanted.contains(key);
            if !keep {
                open.stop.cancel();
            }
            keep
        });
        self.connections.resize(config.limits.connections);
        self.authorities = Some(authorities);
        self.tell_restart(&config);
        self.config = Some(Arc::new(config));
        Ok(())
    }

    /// Asks the servers of these routes in place of those before.
    fn check_health(&mut self, routes: &Routes) {
        self.checks.cancel();
        self.checks = self.stop.child_token();
        routes.backends().for_each(|backend| health::watch(backend, &self.checks));
    }

    fn tell_restart(&self, config: &Config) {
        let Some(before) = &self.config else { return };
        let names = needs_restart(before, config);
        if !names.is_empty() {
            tracing::warn!("changed, but only a restart takes it: {}", names.join(", "));
        }
    }

    /// Rebuilds TLS when the trusted CAs have changed. Cheap when they have not.
    pub fn follow_trust(&mut self) -> Result<(), ServeError> {
        let authorities = self.gateway.state.authorities.load_full();
        if self.authorities.as_ref().is_some_and(|known| Arc::ptr_eq(known, &authorities)) {
            return Ok(());
        }
        let Some(config) = self.config.clone() else { return Ok(()) };
        for listener in &config.listeners {
            let tls = self.tls(listener, &authorities)?;
            self.refresh(listener, tls, &config);
        }
        self.authorities = Some(authorities);
        Ok(())
    }

    fn tls(&self, listener: &Listener, authorities: &Authorities) -> Result<Option<Arc<ServerConfig>>, ServeError> {
        let Some(material) = &listener.tls else { return Ok(None) };
        let believed = Believed {
            trust: authorities.handshake.clone(),
            own: authorities.own.clone(),
            pins: self.gateway.state.clone(),
        };
        Ok(Some(tls::server(material, believed)?))
    }

    /// The same address with and without TLS: the socket goes on with other settings.
    fn release(&mut self, listener: &Listener) -> Option<TcpListener> {
        let (address, secure) = key(listener);
        let open = self.open.remove(&(address, !secure))?;
        open.shared.outlives.store(true, Ordering::Relaxed);
        open.stop.cancel();
        Some(open.socket)
    }

    fn refresh(&self, listener: &Listener, tls: Option<Arc<ServerConfig>>, config: &Config) {
        let Some(open) = self.open.get(&key(listener)) else { return };
        if let (Some(slot), Some(tls)) = (&open.shared.tls, tls) {
            slot.store(tls);
        }
        open.shared.proxies.store(Arc::new(proxies(listener)));
        open.shared.limits.store(Arc::new(config.limits));
        let own = self.config.iter().flat_map(|before| &before.listeners).find(|one| key(one) == key(listener));
        if own.is_none_or(|before| before.connections != listener.connections) {
            open.shared.own_connections.store(own_connections(listener));
        }
    }

    fn listen(
        &mut self,
        listener: &Listener,
        tls: Option<Arc<ServerConfig>>,
        (socket, outlives): (TcpListener, bool),
        config: &Config,
    ) -> Result<(), ServeError> {
        let shared = Arc::new(Listening {
            tls: tls.map(ArcSwap::new),
            address: listener.address,
            outlives: AtomicBool::new(outlives),
            proxies: ArcSwap::from_pointee(proxies(listener)),
            limits: ArcSwap::from_pointee(config.limits),
            connections: self.connections.room().clone(),
            own_connections: ArcSwapOption::new(own_connections(listener)),
            addresses: self.addresses.clone(),
        });
        let stop = self.stop.child_token();
        let bound = socket.local_addr()?;
        self.lanes.listen(&socket, &shared, &stop)?;
        self.open.insert(key(listener), Open { socket, shared, stop, bound });
        Ok(())
    }

    /// Ends: no new connections, those that are open drain.
    pub async fn close(self) {
        self.stop.cancel();
        drop(self.open);
        self.lanes.join().await;
    }
}

fn own_connections(listener: &Listener) -> Option<Arc<Semaphore>> {
    listener.connections.map(|most| Arc::new(Semaphore::new(most)))
}

fn proxies(listener: &Listener) -> Proxies {
    Proxies {
        networks: listener.trusted_proxies.clone(),
        certificate_header: listener.certificate_header.clone().map(CertificateHeader::new).map(Arc::new),
        proxy_protocol: listener.proxy_protocol,
    }
}

fn key(listener: &Listener) -> (SocketAddr, bool) {
    (listener.address, listener.tls.is_some())
}
