//! Lanes: one thread with its own runtime per core, each accepting from the same sockets, each with
//! its own connections, pools and first-level token cache.

use crate::gateway::Gateway;
use crate::http::access_log::{AccessLog, LogWriter};
use crate::http::metrics::{Metrics, Registry};
use crate::http::{Lane, service};
use crate::net::listen::{self, Listening};
use crate::net::slots::AllSlots;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often a lane hands its log lines on.
const TICK: Duration = Duration::from_millis(200);

/// A socket for every lane to accept from until it is stopped.
pub struct Listen {
    pub socket: TcpListener,
    pub shared: Arc<Listening>,
    pub stop: CancellationToken,
}

pub struct Lanes {
    orders: Vec<UnboundedSender<Listen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Lanes {
    pub fn start(count: usize, gateway: &Arc<Gateway>, log: &LogWriter, registry: &Registry) -> std::io::Result<Self> {
        let mut lanes = Self { orders: Vec::new(), threads: Vec::new() };
        let slots = Arc::new(AllSlots::default());
        for number in 0..count.max(1) {
            let (order, orders) = unbounded_channel();
            let runtime = Builder::new_current_thread();
            let (gateway, log, registry) = (gateway.clone(), log.clone(), registry.clone());
            let slots = slots.clone();
            let lane = move || Lane::new(gateway, AccessLog::new(log), Metrics::new(registry), slots);
            let work = move || run(runtime, lane, orders);
            lanes.threads.push(std::thread::Builder::new().name(format!("lane-{number}")).spawn(work)?);
            lanes.orders.push(order);
        }
        Ok(lanes)
    }

    /// Hands a socket to every lane.
    pub fn listen(
        &self,
        socket: &TcpListener,
        shared: &Arc<Listening>,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        for order in &self.orders {
            let listen = Listen { socket: socket.try_clone()?, shared: shared.clone(), stop: stop.clone() };
            if order.send(listen).is_err() {
                return Err(std::io::Error::other("a lane has ended"));
            }
        }
        Ok(())
    }

    /// Waits until every lane has drained. Sockets must have been stopped.
    pub async fn join(self) {
        drop(self.orders);
        let join = move || {
            for thread in self.threads {
                let _ = thread.join();
            }
        };
        let _ = tokio::task::spawn_blocking(join).await;
    }
}

fn run(mut runtime: Builder, lane: impl FnOnce() -> Rc<Lane>, orders: UnboundedReceiver<Listen>) {
    let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a lane has no runtime"),
    };
    runtime.block_on(serve(lane(), orders));
}

async fn serve(lane: Rc<Lane>, mut orders: UnboundedReceiver<Listen>) {
    let tracker = TaskTracker::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => accept(&tracker, &lane, order),
                None => break,
            },
            _ = tick.tick() => lane.tick(),
        }
    }
    tracker.close();
    tracker.wait().await;
    lane.tick();
}

fn accept(tracker: &TaskTracker, lane: &Rc<Lane>, order: Listen) {
    let socket = match tokio::net::TcpListener::from_std(order.socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a lane cannot take a socket"),
    };
    let lane = lane.clone();
    let serving = listen::serve(socket, order.shared, move |peer, conduct| service(&lane, peer, conduct), order.stop);
    tokio::task::spawn_local(tracker.track_future(serving));
}
