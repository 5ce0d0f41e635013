//! Signing on threads of its own behind a bounded queue: RS256 takes most of a millisecond, which
//! a lane cannot spend. When the queue is full the caller is told at once.

use crate::crypto::jws;
use crate::crypto::keyring::{Algorithm, SigningKey};
use crate::domain::reason::Reason;
use crate::domain::trail::Refusal;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Jobs that may wait: at 0.7 ms each, what two threads do in a fifth of a second.
const QUEUE: usize = 512;

struct Job {
    key: Arc<SigningKey>,
    input: String,
    reply: oneshot::Sender<Option<String>>,
}

/// The way into the queue.
#[derive(Clone)]
pub struct Signer(SyncSender<Job>);

impl Signer {
    /// Starts `threads` signing threads; they end when the last `Signer` is gone.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<Job>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.max(1) {
            let receiver = receiver.clone();
            std::thread::Builder::new().name(format!("signer-{number}")).spawn(move || work(&receiver))?;
        }
        Ok(Self(sender))
    }

    /// The finished token over a signing input. ES256 is so cheap that it is done in place.
    pub async fn sign(&self, key: Arc<SigningKey>, input: String) -> Result<String, Refusal> {
        if key.algorithm == Algorithm::ES256 {
            return finish(&key, input).ok_or_else(|| Reason::Internal.into());
        }
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Job { key, input, reply }).map_err(|_| Reason::SignerBusy)?;
        answer.await.ok().flatten().ok_or_else(|| Refusal::because(Reason::Internal, "signing failed"))
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // whoever asked may be gone: then the work is not needed
        if !job.reply.is_closed() {
            let _ = job.reply.send(finish(&job.key, job.input));
        }
    }
}

fn finish(key: &SigningKey, input: String) -> Option<String> {
    let signature = key.sign(input.as_bytes()).ok()?;
    Some(jws::finish(input, &signature))
}
