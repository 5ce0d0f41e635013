//! When to load the configuration again: a change of any file it was made of, SIGHUP, or the poll
//! that catches what a watch misses.

use crate::config::{self, Config, Loaded, fault::Faults};
use notify::{RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
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
    wanted: Arc<Mutex<Wanted>>,
    pub events: mpsc::Receiver<()>,
}

/// What in the watched folders is a reason to look: other files, such as a log, may lie there too.
#[derive(Default)]
struct Wanted {
    names: BTreeSet<OsString>,
    /// All that is in these.
    folders: BTreeSet<PathBuf>,
}

impl Wanted {
    fn of<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Self {
        let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
        Self {
            names: files.into_iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect(),
            folders: folders.into_iter().filter_map(|path| std::path::absolute(path).ok()).collect(),
        }
    }

    fn takes(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else { return true };
        // Kubernetes swaps a link of such a name
        let swapped = name.as_encoded_bytes().starts_with(b"..");
        swapped || self.names.contains(name) || path.parent().is_none_or(|parent| self.folders.contains(parent))
    }
}

impl Watch {
    pub fn new() -> Self {
        let (sender, events) = mpsc::channel(1);
        // one waiting event is enough: whoever takes it looks at everything. That look opens files,
        // which is an event too and must not lead to the next look
        let wanted = Arc::new(Mutex::new(Wanted::default()));
        let known = wanted.clone();
        let note = move |event: notify::Result<notify::Event>| {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let other = |event: notify::Event| {
                event.kind.is_access() || !(event.paths.is_empty() || event.paths.iter().any(|path| known.takes(path)))
            };
            if !event.is_ok_and(other) {
                let _ = sender.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(note);
        let watcher =
            watcher.inspect_err(|error| tracing::warn!(%error, "files cannot be watched; they are polled")).ok();
        Self { watcher, folders: BTreeSet::new(), wanted, events }
    }

    /// Watches what a configuration was made of, in place of what was watched before.
    pub fn cover(&mut self, source: &Source, config: Option<&Config>) {
        let paths = || std::iter::once(&source.path).chain(config.iter().flat_map(|config| &config.watch));
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Wanted::of(paths());
        let wanted: BTreeSet<_> = paths().map(|path| folder(path)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_of_a_watched_folder_are_no_reason_to_look() {
        let dir = tempfile::tempdir().expect("a folder");
        let (config, cas) = (dir.path().join("config.yaml"), dir.path().join("cas"));
        std::fs::create_dir(&cas).expect("a folder");
        let wanted = Wanted::of([config.clone(), cas.clone()].iter());
        for (path, taken) in [
            (config, true),
            (cas.join("new.pem"), true),
            (dir.path().join("..data"), true),
            (dir.path().join("access.log"), false),
            (dir.path().join("data/flowgate.db-wal"), false),
        ] {
            assert_eq!(wanted.takes(&path), taken, "{}", path.display());
        }
    }
}
