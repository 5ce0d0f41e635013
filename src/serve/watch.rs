//! When to load the configuration again: a change of any file it was made of, SIGHUP, or the poll
//! that catches what a watch misses.

use crate::config::{self, Config, Loaded, fault::Faults};
use notify::{RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Where a configuration comes from.
pub struct Source {
    pub path: PathBuf,
    pub env: fn(&str) -> Option<String>,
}

impl Source {
    pub fn load(&self) -> Result<Loaded, Faults> {
        config::load(&self.path, &self.env)
    }
}

/// Watches the folders of all files: an editor replaces a file, and Kubernetes swaps a link beside
/// it, so the file's own name may never be in an event.
pub struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    pub events: mpsc::Receiver<()>,
}

impl Watch {
    pub fn new() -> Self {
        let (sender, events) = mpsc::channel(1);
        // one waiting event is enough: whoever takes it looks at everything. That look opens files,
        // which is an event too and must not lead to the next look
        let note = move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(note);
        let watcher =
            watcher.inspect_err(|error| tracing::warn!(%error, "files cannot be watched; they are polled")).ok();
        Self { watcher, folders: BTreeSet::new(), events }
    }

    /// Watches what a configuration was made of, in place of what was watched before.
    pub fn cover(&mut self, source: &Source, config: Option<&Config>) {
        let paths = std::iter::once(&source.path).chain(config.iter().flat_map(|config| &config.watch));
        let wanted: BTreeSet<_> = paths.map(|path| folder(path)).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.folders.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.folders) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %new.display(), %error, "a folder cannot be watched; it is polled");
            }
        }
        self.folders = wanted;
    }
}

fn folder(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
