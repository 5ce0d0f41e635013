//! The configuration's only way to the disk.

use std::io;
use std::path::{Path, PathBuf};

/// Bytes that a configuration, certificate or key file may have.
const MAX_FILE: u64 = 4 * 1024 * 1024;

pub fn text(path: &Path) -> io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_FILE {
        return Err(io::Error::other(format!("it has {length} bytes, at most {MAX_FILE} are read")));
    }
    std::fs::read_to_string(path)
}

/// Certificate files of a folder in the order of their names, or the file itself.
pub fn certificate_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<_> = std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    let wanted = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("pem" | "crt" | "cer" | "crl"))
    };
    Ok(files.into_iter().map(|entry| entry.path()).filter(wanted).collect())
}
